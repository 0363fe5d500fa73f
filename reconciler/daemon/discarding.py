"""Entries of the trash that go for good because somebody says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.api.service import TrashEntry
from reconciler.daemon import views
from reconciler.daemon.engine import Engine
from reconciler.drivers.cache import evict
from reconciler.lib.errors import BangerError, UsageError


def discard(engine: Engine, entry: str) -> int:
    """Deletes one entry with all its disks. Returns the bytes that came free.

    Killed in the middle, the rest of it is swept by the next apply. Raises UsageError if there is no such entry, BangerError
    if something is working with it or it cannot be removed.
    """
    found = _find(engine, entry)
    # A restore of that environment may want the same one: who comes second finds it gone.
    with engine.writing(_quietly, found.environment):
        found = _find(engine, entry)
        gone = evict.evict(engine.paths.trash, [(entry, math.inf)], _by_nobody, files=False)
    if why := gone.spared.get(entry):
        raise BangerError(f"{entry} stays in the trash: {why}")
    return found.size


def _find(engine: Engine, entry: str) -> TrashEntry:
    for found in views.trash(engine.paths):
        if found.entry == entry:
            return found
    raise UsageError(f"there is no entry {entry} in the trash", hint="banger vm trash")


@contextmanager
def _by_nobody() -> Iterator[Callable[[str], str | None]]:
    yield lambda name: None


def _quietly(message: str) -> None:
    """Somebody else is changing things, which ends."""
