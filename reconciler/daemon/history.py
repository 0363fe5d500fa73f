"""Reads the events of the state directory, and waits for more."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.daemon.engine import Engine
from reconciler.lib import cancel
from reconciler.model.events import Event
from reconciler.store.events import EventLog

_NEWEST = 50
_LOOK_SECONDS = 0.3
_AT_ONCE = 500


def events(engine: Engine, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
    """Events with an id above `after`, oldest first; without it, the newest 50. With `follow`, also those to come.

    Polls: the writer is another process, and a reader that looks at one index each 0.3 s costs nobody anything.
    """
    while not engine.exists:
        if not follow or cancel.cancelled():
            return
        engine.clock.sleep(_LOOK_SECONDS)
    log = EventLog(engine.database, engine.clock)
    if after is None:
        recent = log.newest_of(environment, _NEWEST)
        yield from recent
        after = recent[-1].id if recent else log.newest()
    while True:
        batch = log.read(environment=environment, after=after, limit=_AT_ONCE)
        yield from batch
        if batch:
            after = batch[-1].id
        elif not follow or cancel.cancelled():
            return
        else:
            engine.clock.sleep(_LOOK_SECONDS)
