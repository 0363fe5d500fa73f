"""Time as a thing one can pass in, so that tests need no sleeping."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from reconciler.lib import cancel


class Clock(Protocol):
    """What the impure layers may ask about time."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch (UTC). For people and records, never for waiting."""

    def monotonic(self) -> float:
        """Seconds that never go back. For deadlines."""

    def sleep(self, seconds: float) -> None:
        """Waits, but no longer than until the process is told to end."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        cancel.pause(seconds)


def boot_id() -> str:
    """The kernel's random id of this boot (proc(5), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
