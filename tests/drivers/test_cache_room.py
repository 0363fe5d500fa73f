"""A file system that fills up is noticed, by the hundredth."""

from __future__ import annotations

import threading
from pathlib import Path

from reconciler.drivers.cache.room import RoomWatch

NOWHERE = Path("/nonexistent")


def test_it_tells_each_hundredth_once(tmp_path: Path) -> None:
    free = [1000]
    told: list[int] = []
    watch = RoomWatch(NOWHERE, lambda: told.append(free[0]), look=lambda folder: (free[0], 1000))
    for left in (1000, 995, 991, 990, 985, 980, 981, 1000):
        free[0] = left
        watch.check()
    assert told == [990, 980, 1000]


def test_what_cannot_be_asked_or_told_ends_nothing(capfd: object) -> None:
    answers = iter([(100, 100), (50, 100), OSError(5, "Input/output error"), (10, 100)])

    def look(folder: Path) -> tuple[int, int]:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    told: list[str] = []

    def fail() -> None:
        told.append("told")
        raise RuntimeError("nobody listens")

    watch = RoomWatch(NOWHERE, fail, look=look)
    for _ in range(4):
        watch.check()
    assert told == ["told", "told"]


def test_it_runs_until_it_is_stopped(tmp_path: Path) -> None:
    seen = threading.Event()
    free = iter(range(10_000, 0, -1000))

    def look(folder: Path) -> tuple[int, int]:
        return next(free, 0), 10_000

    watch = RoomWatch(tmp_path, seen.set, look=look, seconds=0.001)
    watch.start()
    watch.start()
    assert seen.wait(30)
    watch.stop()
    RoomWatch(tmp_path, seen.set).stop()
