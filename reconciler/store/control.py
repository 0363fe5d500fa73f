"""What a controller must remember: what people decided, what is wrong with a file, and since when a condition holds.

None of it says how the host is (I8). An environment that is dropped from the inventory takes its rows with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.store.db import Database

_WHOLE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """What is to be left alone: the environment as a whole, and single VMs of it. Resuming one keeps the other."""

    environment: bool = False
    vms: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A watched file.

    Parameters
    ----------
    environment: what it described when it was good last; None if it never was.
    problem: what is wrong with it now, or None.
    since: when `problem` became so, in seconds since the epoch.
    """

    path: str
    environment: str | None
    problem: str | None
    since: float


class ControlState:
    """Typed access. What writes is for the holder of the writer lock; reading finds nothing in an older file."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def pause(self, environment: str, vm: str | None, at: float) -> None:
        """Has one VM, or with None the environment, left alone. The first time counts."""
        self._db.execute("INSERT OR IGNORE INTO pauses VALUES (?, ?, ?)", environment, vm or _WHOLE, at)

    def resume(self, environment: str, vm: str | None) -> bool:
        """Ends that pause; whether there was one."""
        with self._db.transaction():
            key = (environment, vm or _WHOLE)
            there = self._db.rows("SELECT 1 FROM pauses WHERE environment = ? AND vm = ?", *key)
            self._db.execute("DELETE FROM pauses WHERE environment = ? AND vm = ?", *key)
        return bool(there)

    def paused(self, environment: str) -> Pauses:
        if not self._db.current:
            return Pauses()
        found = {str(row["vm"]) for row in self._db.rows("SELECT vm FROM pauses WHERE environment = ?", environment)}
        return Pauses(environment=_WHOLE in found, vms=frozenset(found - {_WHOLE}))

    def approve(self, environment: str, digest: str, at: float) -> None:
        """Lets the removals of exactly that digest (`plan.guard.removal_digest`) go."""
        self._db.execute("INSERT OR IGNORE INTO approvals VALUES (?, ?, ?)", environment, digest, at)

    def approved(self, environment: str) -> frozenset[str]:
        if not self._db.current:
            return frozenset()
        rows = self._db.rows("SELECT digest FROM approvals WHERE environment = ?", environment)
        return frozenset(str(row["digest"]) for row in rows)

    def forget_approvals(self, environment: str) -> None:
        self._db.execute("DELETE FROM approvals WHERE environment = ?", environment)

    def put_source(self, row: SourceRow) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", row.path, row.environment, row.problem, row.since
        )

    def sources(self) -> list[SourceRow]:
        """Sorted by path."""
        if not self._db.current:
            return []
        return [SourceRow(**dict(row)) for row in self._db.rows("SELECT * FROM sources ORDER BY path")]

    def drop_source(self, path: str) -> None:
        self._db.execute("DELETE FROM sources WHERE path = ?", path)

    def transition(self, environment: str, object: str, type: str, status: str, since: float) -> None:
        """Notes since when a condition has a status; writes nothing if it had it already (I5)."""
        key = (environment, object, type)
        known = self._db.rows("SELECT status FROM transitions WHERE environment = ? AND object = ? AND type = ?", *key)
        if not known or known[0]["status"] != status:
            self._db.execute("INSERT OR REPLACE INTO transitions VALUES (?, ?, ?, ?, ?)", *key, status, since)

    def transitions(self, environment: str) -> Mapping[tuple[str, str], tuple[str, float]]:
        """(object, type) → (status, since)."""
        if not self._db.current:
            return {}
        rows = self._db.rows("SELECT * FROM transitions WHERE environment = ?", environment)
        return {(row["object"], row["type"]): (row["status"], row["since"]) for row in rows}
