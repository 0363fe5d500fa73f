"""Threads that run one at a time, and change at every line of chosen files, by a seed: the same seed, the same interleaving."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


class Turns:
    """Runs functions beside each other, at any moment one of them.

    Whoever has to wait for another one calls `give_way` in a loop; a lock of the kernel would stop the world.
    """

    def __init__(self, seed: int, files: Iterable[str]) -> None:
        self._chance = random.Random(seed)
        self._files = frozenset(files)
        self._gates: dict[int, threading.Semaphore] = {}
        self._alive: list[int] = []
        self._mine = threading.local()
        self.errors: list[BaseException] = []
        self.changes = 0

    def run(self, *works: Callable[[], None]) -> None:
        """Until all have ended; what one raises is raised."""
        threads = []
        for number, work in enumerate(works):
            self._gates[number] = threading.Semaphore(0)
            self._alive.append(number)
            threads.append(threading.Thread(target=self._turn, args=(number, work)))
        for thread in threads:
            thread.start()
        self._next()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def give_way(self) -> None:
        """Lets chance choose who goes on; without meaning outside of `run`."""
        number = getattr(self._mine, "number", None)
        if number is None:
            return
        self.changes += 1
        self._next()
        self._gates[number].acquire()

    def _next(self) -> None:
        if self._alive:
            self._gates[self._chance.choice(self._alive)].release()

    def _turn(self, number: int, work: Callable[[], None]) -> None:
        self._mine.number = number
        self._gates[number].acquire()
        sys.settrace(self._trace)
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        finally:
            sys.settrace(None)
            self._alive.remove(number)
            self._next()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.give_way()
        return self._line
