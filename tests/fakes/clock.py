"""A clock that a test moves: sleeping takes no time, and is remembered."""

from __future__ import annotations

from collections.abc import Callable


class FakeClock:
    """Implements `reconciler.lib.clock.Clock`. `on_sleep` is called with the seconds of each sleep."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now
        self.slept: list[float] = []
        self.on_sleep: Callable[[float], None] = lambda seconds: None

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self.on_sleep(seconds)
