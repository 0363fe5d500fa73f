"""Events: what happened to which object, for `banger events`. Never acted upon (I1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.lib.clock import Clock
from reconciler.model.events import Event
from reconciler.store.db import Database

_KEPT = 10_000


class EventLog:
    """The newest 10,000 events of the state directory, of all its environments. Reading needs no writer lock."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    def append(
        self,
        environment: str,
        object: str,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        operation: str = "",
    ) -> Event:
        """Adds an event and returns it with its id; the oldest one goes if there are too many.

        Parameters are those of `Event`. Inside of a transaction it happens with that, or not at all.
        """
        at = self._clock.now()
        with self._db.transaction():
            identity = self._db.execute(
                "INSERT INTO events (at, operation, environment, object, warning, reason, message)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                at,
                operation,
                environment,
                object,
                int(warning),
                reason,
                message,
            )
            self._db.execute("DELETE FROM events WHERE id <= ?", identity - _KEPT)
        return Event(
            id=identity,
            at=at,
            operation=operation,
            environment=environment,
            object=object,
            warning=warning,
            reason=reason,
            message=message,
        )

    def read(self, *, environment: str | None = None, after: int = 0, limit: int = 1000) -> list[Event]:
        """At most `limit` events with ids above `after`, of one environment or of all, oldest first."""
        if not self._db.current:
            return []
        if environment is None:
            rows = self._db.rows("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        else:
            rows = self._db.rows(
                "SELECT * FROM events WHERE environment = ? AND id > ? ORDER BY id LIMIT ?", environment, after, limit
            )
        return _events(map(dict, rows))

    def newest(self) -> int:
        """The id of the newest event; 0 if there is none."""
        if not self._db.current:
            return 0
        return int(self._db.rows("SELECT coalesce(max(id), 0) AS id FROM events")[0]["id"])

    def newest_of(self, environment: str | None, limit: int) -> list[Event]:
        """The newest `limit` events of one environment or of all, oldest first."""
        if not self._db.current:
            return []
        if environment is None:
            rows = self._db.rows("SELECT * FROM events ORDER BY id DESC LIMIT ?", limit)
        else:
            rows = self._db.rows(
                "SELECT * FROM events WHERE environment = ? ORDER BY id DESC LIMIT ?", environment, limit
            )
        return _events(map(dict, reversed(rows)))


def _events(rows: Iterable[Mapping[str, Any]]) -> list[Event]:
    return [Event(**{**row, "warning": bool(row["warning"])}) for row in rows]
