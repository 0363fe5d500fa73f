"""A source in action, and what it has told so far."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib.clock import SystemClock
from reconciler.sources.file import Content, FileSource

SAVES = int(os.environ.get("BANGER_SAVES", "5"))
# The real value in a long run; else as short as a busy machine allows.
SETTLE = 0.1 if "BANGER_SAVES" in os.environ else 0.03
PATIENCE = 60.0  # seconds; only a failing test waits for it


class Followed:
    def __init__(self, path: Path, **more: float) -> None:
        self.told: list[Content] = []
        self._queue: queue.Queue[Content] = queue.Queue()
        self.source = FileSource(path, self._queue.put, clock=SystemClock(), **{"settle": SETTLE, **more})  # type: ignore[arg-type]

    def next(self) -> Content:
        self.told.append(self._queue.get(timeout=PATIENCE))
        return self.told[-1]

    def until(self, data: bytes) -> None:
        while self.next().data != data:
            pass

    @property
    def contents(self) -> list[bytes | None]:
        return [content.data for content in self.told]

    def rest(self) -> list[Content]:
        """Stops it; what it has told beyond what was waited for."""
        self.source.stop()
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]


@contextmanager
def following(path: Path, **more: float) -> Iterator[Followed]:
    followed = Followed(path, **more)
    followed.source.start()
    try:
        yield followed
    finally:
        followed.source.stop()


def eventually(condition: Callable[[], bool]) -> None:
    """Waits for another thread to see what has been done."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def spec(number: int) -> bytes:
    """Twenty VMs; of every length, and no two alike. Cut after a line, it is a valid file with fewer of them."""
    vms = "".join(f"  vm-{vm}: {{cpus: {number + vm}}}{' ' * (number % 7)}\n" for vm in range(20 - number % 3))
    return f"# save {number}\nvms:\n{vms}".encode()
