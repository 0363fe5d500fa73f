"""Carries new events from the store to those who follow along."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reconciler.lib.errors import BangerError
from reconciler.model.events import Event
from reconciler.store.events import EventLog

_AT_ONCE = 500


class Pump:
    """One thread that reads what was appended since last time; idle until it is poked."""

    def __init__(self, events: EventLog, publish: Callable[[Event], None]) -> None:
        self._events = events
        self._publish = publish
        self._after = events.newest()
        self._wake = threading.Event()
        self._end = False
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """Publishes what is left, and ends."""
        self._end = True
        self._wake.set()
        self._thread.join(5)

    def _work(self) -> None:
        while not self._end:
            self._wake.wait()
            self._wake.clear()
            try:
                while batch := self._events.read(after=self._after, limit=_AT_ONCE):
                    for event in batch:
                        self._publish(event)
                    self._after = batch[-1].id
            except BangerError:
                continue  # the disk is full, say: the next poke reads on from here
