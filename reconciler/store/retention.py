"""What the retention of the cache must remember: what somebody pinned, and how much went lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.model.retention import DAY, EntryKind
from reconciler.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An entry that is kept whatever a policy says. `at` in seconds since the epoch."""

    kind: EntryKind
    name: str
    at: float


class RetentionState:
    """Typed access. What writes is for the holder of the writer lock; reading finds nothing in an older file."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def pin(self, kind: EntryKind, name: str, at: float) -> bool:
        """Has an entry kept; it need not be there yet. False: it was pinned already."""
        with self._db.transaction():
            there = self._db.rows("SELECT 1 FROM pins WHERE kind = ? AND name = ?", kind.value, name)
            self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", kind.value, name, at)
        return not there

    def unpin(self, kind: EntryKind, name: str) -> bool:
        """Leaves an entry to the policy again. False: it was not pinned."""
        with self._db.transaction():
            there = self._db.rows("SELECT 1 FROM pins WHERE kind = ? AND name = ?", kind.value, name)
            self._db.execute("DELETE FROM pins WHERE kind = ? AND name = ?", kind.value, name)
        return bool(there)

    def pins(self) -> list[Pin]:
        """Sorted by kind and name."""
        if not self._db.current:
            return []
        rows = self._db.rows("SELECT kind, name, at FROM pins ORDER BY kind, name")
        return [Pin(kind=EntryKind(row["kind"]), name=row["name"], at=row["at"]) for row in rows]

    def spend(self, kind: EntryKind, count: int, now: float) -> None:
        """Notes that so many entries of a kind go now; a negative number takes back what did not go."""
        with self._db.transaction():
            self._db.execute("DELETE FROM evictions WHERE abs(at - ?) > ?", now, 2 * DAY)
            self._db.execute("INSERT INTO evictions (kind, at, count) VALUES (?, ?, ?)", kind.value, now, count)

    def spent(self, now: float) -> Mapping[str, int]:
        """Kind → how many of its entries went within a day of `now`.

        On either side: what went while the clock was ahead counts when it is set back, but not for years.
        """
        if not self._db.current:
            return {}
        rows = self._db.rows(
            "SELECT kind, sum(count) AS count FROM evictions WHERE abs(at - ?) < ? GROUP BY kind", now, DAY
        )
        return {str(row["kind"]): int(row["count"]) for row in rows}
