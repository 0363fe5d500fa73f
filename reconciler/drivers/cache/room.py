"""Notices that a file system fills up: the kernel has no event for that, so it is asked now and then."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from reconciler.drivers.cache.probe import room

_SECONDS = 10.0
_PART = 0.01


class RoomWatch:
    """Tells whenever another hundredth of a file system was used up, or so much came free.

    Parameters
    ----------
    folder: on the file system; need not be there yet.
    changed: called from a thread of its own.
    look: free and total bytes, as `probe.room` has them.
    """

    def __init__(
        self,
        folder: Path,
        changed: Callable[[], None],
        *,
        look: Callable[[Path], tuple[int, int]] = room,
        seconds: float = _SECONDS,
    ) -> None:
        self._folder = folder
        self._changed = changed
        self._look = look
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="room", daemon=True)
        self._told: int | None = None

    def start(self) -> None:
        """Begins, unless it has."""
        if self._thread.ident is None and not self._over.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Ends it and waits for that; it must not be called by `changed`."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            self.check()
            if self._over.wait(self._seconds):
                return

    def check(self) -> None:
        """One look."""
        try:
            free, total = self._look(self._folder)
        except OSError:
            return  # the pass that reads the cache says what is wrong
        if self._told is None:
            self._told = free
        elif abs(self._told - free) >= _PART * total:
            self._told = free
            try:
                self._changed()
            except Exception:
                # The next hundredth is still to be told.
                sys.excepthook(*sys.exc_info())
