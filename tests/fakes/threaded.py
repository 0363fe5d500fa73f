"""A host for the controller's real threads, which counts who is where at once."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.control.reconciler import Reconciler
from reconciler.lib.clock import SystemClock
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Plan, Step
from tests.fakes.sched import FakeHost

PATIENCE = 8.0


class ThreadedHost(FakeHost):
    """Counts who is where at once. `inside` is called within each step."""

    def __init__(self, *, every: float = 300.0) -> None:
        super().__init__(every=every)
        self.lock = threading.Lock()
        self.inside: Callable[[str, Step], None] = lambda environment, step: None
        self.running: Counter[tuple[str, str]] = Counter()
        self.passing: Counter[str] = Counter()
        self.closed: set[str] = set()
        self.wrong: list[str] = []
        self.most = 0
        self.ran: list[str] = []

    def plan(self, environment: str) -> Plan:
        with self.lock:
            self.passing[environment] += 1
            if self.passing[environment] > 1:
                self.wrong.append(f"two passes over {environment}")
            if environment in self.closed:
                self.wrong.append(f"a pass over {environment}, which is reserved")
        try:
            return super().plan(environment)
        finally:
            with self.lock:
                self.passing[environment] -= 1

    def run(self, environment: str, step: Step) -> Outcome:
        key = (environment, step.action.object)
        with self.lock:
            self.running[key] += 1
            self.ran.append(step.id)
            self.most = max(self.most, sum(self.running.values()))
            if self.running[key] > 1:
                self.wrong.append(f"two steps on {key}")
            if environment in self.closed:
                self.wrong.append(f"{step.id}, though {environment} is reserved")
        try:
            self.inside(environment, step)
            return super().run(environment, step)
        finally:
            with self.lock:
                self.running[key] -= 1


class Gate:
    """A step that waits to be let on: `inside` for a host."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, environment: str, step: Step) -> None:
        self.arrived.release()
        assert self.open.wait(PATIENCE)

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE)


def queued(turned: Reconciler, blocks: int) -> None:
    """Waits until so many blocks have the environment, or wait for it: they tell nobody."""
    deadline = time.monotonic() + PATIENCE
    while len(turned._lines.get("env", ())) < blocks:
        assert time.monotonic() < deadline
        os.sched_yield()


@contextmanager
def controller(host: ThreadedHost, *, workers: int = 4, starts: int = 2) -> Iterator[Reconciler]:
    turned = Reconciler(host, SystemClock(), workers=workers, starts=starts)
    turned.start()
    try:
        yield turned
    finally:
        assert turned.stop(PATIENCE)
