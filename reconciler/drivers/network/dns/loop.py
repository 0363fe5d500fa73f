"""One thread that waits for descriptors, for moments, and for calls from other threads.

A callback that fails is reported and costs nobody else anything. Nothing is kept once it was cancelled and its moment
has passed.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Callback = Callable[[], None]


class Timer:
    """A call that is still to come. `cancel` may be called at any time, in the loop's thread."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Runs in one thread; only `call` and `stop` are for others.

    Parameters
    ----------
    failed: hears of exceptions that callbacks let out.
    monotonic: seconds.
    """

    def __init__(self, failed: Callable[[Exception], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._failed = failed
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._calls: deque[Callback] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, READ, self._woken)
        self._lock = threading.Lock()
        self._stopping = False
        self._closed = False

    def watch(self, channel: socket.socket, events: int, callback: Callback) -> None:
        """Has `callback` called whenever `channel` is ready for `events`; replaces what was watched there."""
        try:
            self._selector.modify(channel, events, callback)
        except KeyError:
            self._selector.register(channel, events, callback)

    def forget(self, channel: socket.socket) -> None:
        """Before it is closed. May be repeated."""
        try:
            self._selector.unregister(channel)
        except (KeyError, ValueError):  # ValueError: it is closed already
            pass

    def later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (self._monotonic() + seconds, next(self._order), timer))
        return timer

    def call(self, callback: Callback) -> bool:
        """From any thread: has `callback` called soon. False if the loop has ended, and it never will be."""
        with self._lock:
            if self._closed:
                return False
            self._calls.append(callback)
            os.eventfd_write(self._wake, 1)
            return True

    def stop(self) -> None:
        """From any thread: `run` returns soon, after the calls that were made before. May be repeated."""

        def end() -> None:
            self._stopping = True

        self.call(end)

    def run(self) -> None:
        """Returns after `stop`. What was asked for with `call` until then has been done."""
        while not self._stopping:
            for key, _ in self._selector.select(self._patience()):
                # One callback may have closed what another one of this round was about.
                if self._selector.get_map().get(key.fd) is key:
                    self._guarded(key.data)
            self._ring()
        with self._lock:
            self._closed = True
        self._woken()
        self._selector.close()
        os.close(self._wake)

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._monotonic()) if self._timers else None

    def _ring(self) -> None:
        now = self._monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                self._guarded(callback)

    def _woken(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        for _ in range(len(self._calls)):
            self._guarded(self._calls.popleft())

    def _guarded(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as problem:
            self._failed(problem)
