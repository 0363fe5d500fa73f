"""Intents: what was about to be done, written before it is tried, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from reconciler.lib.clock import Clock
from reconciler.model.actions import Action, EvictEntries
from reconciler.model.outcome import Outcome, Result
from reconciler.store.db import Database
from reconciler.store.events import EventLog

_REASONS: Mapping[str, str] = {
    "FetchKernel": "Fetched",
    "FetchTools": "Fetched",
    "BuildImage": "Built",
    "EnsureBridge": "Ensured",
    "EnsureRules": "Filtered",
    "DeleteBridge": "Deleted",
    "EnsureTap": "Connected",
    "DeleteTap": "Disconnected",
    "CreateVm": "Created",
    "UpdateVm": "Recorded",
    "StartVm": "Started",
    "StopVm": "Stopped",
    "PublishPorts": "Published",
    "ConfigureGuest": "Configured",
    "ProvisionVm": "Provisioned",
    "AwaitReady": "Ready",
    "ShipWorkspace": "Shipped",
    "ApproveRemoval": "Approved",
    "TrashVm": "Trashed",
    "RestoreVm": "Restored",
    "TrashVolumes": "Trashed",
    "KillStray": "Killed",
    "SweepStaging": "Swept",
    "EvictEntries": "Evicted",
    "ForgetEnvironment": "Forgotten",
}
"""What an event says of an action that is done."""
_MOST_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One attempt at one step. `result` is None while it runs, or when its process was killed."""

    operation: str
    environment: str
    step: str
    begun_at: float
    ended_at: float | None
    result: str | None
    error: str | None


class Journal:
    """The record of one operation (one apply, one delete), identified by `operation`."""

    def __init__(self, database: Database, clock: Clock, operation: str) -> None:
        self._db = database
        self._clock = clock
        self._events = EventLog(database, clock)
        self.operation = operation

    @contextmanager
    def intend(self, environment: str, action: Action) -> Iterator[int]:
        """Records an intent; what is written to the inventory inside the block is one transaction with it."""
        with self._db.transaction():
            yield self._db.execute(
                "INSERT INTO intents (operation, environment, step, action, begun_at) VALUES (?, ?, ?, ?, ?)",
                self.operation,
                environment,
                action.id,
                json.dumps(_recorded(action)),
                self._clock.now(),
            )

    def end(self, intent: int, outcome: Outcome) -> None:
        """Records how it ended, and tells it as an event."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE intents SET ended_at = ?, result = ?, error = ? WHERE id = ?",
                self._clock.now(),
                outcome.result.value,
                outcome.error.cause if outcome.error else None,
                intent,
            )
            self._tell(intent, outcome)
            self._db.prune_intents()

    def _tell(self, intent: int, outcome: Outcome) -> None:
        row = self._db.rows("SELECT environment, action FROM intents WHERE id = ?", intent)[0]
        action = json.loads(row["action"])
        reason, message = _REASONS[action["action"]], str(action["description"])
        if outcome.result is not Result.DONE:
            reason = "Cancelled" if outcome.result is Result.CANCELLED else "Failed"
            message = f"{message}: {outcome.error.cause}" if outcome.error else message
        self._events.append(
            row["environment"],
            outcome.object,
            reason,
            message,
            warning=outcome.result.unsuccessful,
            operation=self.operation,
        )

    def last_failures(self, environment: str) -> dict[str, str]:
        """Object → the error of its newest ended step, for objects whose newest ended step failed."""
        rows = self._db.rows(
            "SELECT step, result, error FROM intents WHERE environment = ? AND ended_at IS NOT NULL ORDER BY id DESC LIMIT 2000",
            environment,
        )
        newest: dict[str, str] = {}
        for row in rows:
            newest.setdefault(row["step"].partition(" ")[2], row["error"] if row["result"] == "failed" else "")
        return {name: error for name, error in newest.items() if error}


def _recorded(action: Action) -> dict[str, Any]:
    """An action as it is kept: of what has a hundred thousand entries, the first thousand and the number of the others."""
    if not isinstance(action, EvictEntries) or len(action.entries) <= _MOST_ENTRIES:
        return action.to_json()
    some = replace(action, entries=action.entries[:_MOST_ENTRIES]).to_json()
    return {**some, "description": action.describe(), "more": len(action.entries) - _MOST_ENTRIES}
