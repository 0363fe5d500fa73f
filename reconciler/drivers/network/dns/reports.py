"""What goes wrong at the rate of packets, said at the rate of lines that somebody reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_INTERVAL = 30.0


class Reports:
    """Passes on one message of each kind per interval, with how many more there were. Thread-safe.

    Parameters
    ----------
    say: gets the sentence; called in whichever thread has something to report.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        interval: float = _INTERVAL,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._interval = interval
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def report(self, kind: str, message: str) -> None:
        """`kind` is one of a few fixed words; `message` may quote what came, which the log cuts and escapes."""
        now = self._monotonic()
        with self._lock:
            if now < self._next.get(kind, now):
                self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
                return
            self._next[kind] = now + self._interval
            more = self._unsaid.pop(kind, 0)
        self._say(f"{message} (and {more} more like it since the last such line)" if more else message)
