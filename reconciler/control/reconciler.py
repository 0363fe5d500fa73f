"""The controller's threads: they wait until the `Wheel` has something for them, and for nothing else.

    poke ──▶ queue of environments ──▶ pass: observe, plan ──▶ board of steps ──▶ step: act ──▶ poke

A trigger only says "look again" (I1). A pass never waits for a step, and a step that ends asks for a pass: so whatever
depends on it begins then, and what does not never waited (I7).
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from reconciler.control.board import Lane
from reconciler.control.host import Host, PassReport, Trouble
from reconciler.control.passes import attempt, run_pass
from reconciler.control.wheel import Wheel
from reconciler.lib import cancel
from reconciler.lib.clock import Clock
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.model.plan import Step

__all__ = ["Host", "PassReport", "Reconciler", "Trouble"]

_PASS_THREADS = 2
_STOP_THREADS = 32
"""Guests that shut down at once: their threads do nothing but wait."""
_GUEST_THREADS = 32
"""Guests that something is done in at once, likewise."""

_STUCK_SECONDS = 300.0
_LOOK_SECONDS = 0.2
"""A process that is told to end says so by a flag, which has to be looked at."""


class Reconciler:
    """Keeps every environment that it is poked with as its host's plans ask.

    Parameters
    ----------
    host: what is kept.
    clock: its monotonic time must be that of the machine.
    workers: how many ordinary steps run at once, and how many builds.
    starts: how many VMs may be about to start; the places for booting guests.
    random: spreads retries and resyncs; None takes one of its own.
    """

    def __init__(
        self, host: Host, clock: Clock, *, workers: int, starts: int, random: random.Random | None = None
    ) -> None:
        self._host = host
        self._clock = clock
        self._wheel = Wheel(random)
        self._most = {
            Lane.QUICK: workers,
            Lane.BUILD: workers,
            Lane.START: starts,
            Lane.STOP: _STOP_THREADS,
            Lane.GUEST: _GUEST_THREADS,
        }
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        self._work = {lane: threading.Condition(self._lock) for lane in Lane}
        self._idle = dict.fromkeys(Lane, 0)
        self._changed = threading.Condition(self._lock)
        self._threads: dict[str, list[threading.Thread]] = {}
        self._lines: dict[str, deque[object]] = {}
        self._passing: dict[str, float] = {}
        self._stopping = False

    def start(self) -> None:
        """Begins with what was poked so far. Threads for steps come when there are steps."""
        with self._lock:
            for _ in range(_PASS_THREADS):
                self._spawn("pass", self._pass_thread)

    def stop(self, timeout: float) -> bool:
        """Begins nothing any more, and waits for what runs; returns whether that ended within `timeout` seconds."""
        deadline = self._clock.monotonic() + timeout
        with self._lock:
            self._stopping = True
            for condition in (self._due, self._changed, *self._work.values()):
                condition.notify_all()
            threads = [thread for group in self._threads.values() for thread in group]
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def poke(self, environment: str, *, delay: float = 0.0) -> None:
        """Asks for a look at `environment`, in `delay` seconds at the latest. Cheap, from any thread."""
        with self._lock:
            self._wheel.poke(environment, self._clock.monotonic() + delay)
            self._due.notify()

    def forget(self, environment: str, target: str | None = None) -> None:
        """Asks for a look too, at which everything may be tried at once: `target` is an object, None means all.

        Call it when what is wanted has changed: then also nothing begins any more that was planned before.
        """
        with self._lock:
            self._wheel.forget(environment, target, self._clock.monotonic())
            self._due.notify()

    def troubles(self, environment: str) -> Mapping[str, Trouble]:
        """The objects that are in flight, fail, or are contended. All others are as they should be, or planned."""
        with self._lock:
            return self._wheel.troubles(environment, self._clock.monotonic())

    def busy(self, environment: str | None = None) -> bool:
        """Whether a pass or a step runs, or is about to. What waits for a later time is not about to."""
        with self._lock:
            return self._wheel.busy(environment)

    def alive(self) -> bool:
        """Whether the threads that look are there, and none of them is stuck: for a watchdog."""
        with self._lock:
            oldest = min(self._passing.values(), default=self._clock.monotonic())
            there = len(self._threads.get("pass", [])) == _PASS_THREADS
            alive = there and all(thread.is_alive() for thread in self._threads["pass"])
            return alive and self._clock.monotonic() - oldest < _STUCK_SECONDS

    def idle_wait(self, environment: str | None, timeout: float) -> bool:
        """Waits until `environment` (None: all) is not busy; returns whether it came to that within `timeout` s."""
        with self._lock:
            return self._changed.wait_for(lambda: not self._wheel.busy(environment), timeout)

    @contextmanager
    def exclusive(
        self, environment: str, objects: frozenset[str] | None = None, *, timeout: float | None = None
    ) -> Iterator[None]:
        """The block is the only one that acts on these objects (None: all) of the environment.

        Waits for the steps on them that run, and for the pass that does; none begins until the block ends, and then
        the environment is looked at. Blocks of one environment take their turns as they came. While some objects
        are reserved, the others are still kept.

        Parameters
        ----------
        timeout: seconds to wait for the turn; None waits for as long as it takes.

        Raises BangerError (retryable) after `timeout`, CancelledError if the process or the controller ends. Must
        not be used by the host's own methods, which would wait for themselves.
        """
        ticket = object()
        with self._lock:
            line = self._lines.setdefault(environment, deque())
            line.append(ticket)
            reserved = False
            deadline = None if timeout is None else self._clock.monotonic() + timeout
            try:
                self._wait(lambda: "another operation" if line[0] is not ticket else None, environment, deadline)
                self._wheel.reserve(environment, objects)
                reserved = True
                self._wait(lambda: self._wheel.in_the_way(environment), environment, deadline)
            except BaseException:
                self._leave(environment, ticket, reserved)
                raise
        try:
            yield
        finally:
            with self._lock:
                self._leave(environment, ticket, True)

    def _wait(self, obstacle: Callable[[], str | None], environment: str, deadline: float | None) -> None:
        """Waits, with the lock, until there is no obstacle."""
        while (what := obstacle()) is not None:
            if self._stopping or cancel.cancelled():
                raise CancelledError
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - self._clock.monotonic())
            if left <= 0:
                raise BangerError(
                    f"environment {environment} is busy with {what}",
                    hint="try again when that has ended",
                    error_class=ErrorClass.RETRYABLE,
                )
            self._changed.wait(left)

    def _leave(self, environment: str, ticket: object, reserved: bool) -> None:
        line = self._lines[environment]
        line.remove(ticket)
        if not line:
            del self._lines[environment]
        if reserved:
            self._wheel.release(environment, self._clock.monotonic())
            self._due.notify()
        self._changed.notify_all()

    def _pass_thread(self) -> None:
        while (environment := self._next_pass()) is not None:
            run_pass(self._wheel, self._lock, self._host, self._clock, environment, offer=self._offer)
            with self._lock:
                del self._passing[environment]
                self._changed.notify_all()

    def _next_pass(self) -> str | None:
        with self._lock:
            while not self._stopping:
                now = self._clock.monotonic()
                environment = self._wheel.begin(now)
                # Another thread has to mind the time from here on; this one is busy or sleeps.
                if environment is not None:
                    self._passing[environment] = now
                    self._due.notify()
                    return environment
                due = self._wheel.next_due()
                self._due.wait(None if due is None else min(due - now, threading.TIMEOUT_MAX))
            return None

    def _step_thread(self, lane: Lane) -> None:
        while (taken := self._next_step(lane)) is not None:
            environment, step = taken
            outcome = attempt(self._host, environment, step)
            with self._lock:
                self._wheel.ended(environment, step, outcome, self._clock.monotonic())
                self._due.notify()
                self._changed.notify_all()

    def _next_step(self, lane: Lane) -> tuple[str, Step] | None:
        with self._lock:
            while not self._stopping:
                taken = self._wheel.take(lane, self._clock.monotonic())
                if taken is not None:
                    return taken
                self._idle[lane] += 1
                self._work[lane].wait()
                self._idle[lane] -= 1
            return None

    def _offer(self) -> None:
        """With the lock: wakes or adds a thread for every step that could begin."""
        for lane, condition in self._work.items():
            waiting = self._wheel.waiting(lane)
            condition.notify(waiting)
            missing = min(waiting - self._idle[lane], self._most[lane] - len(self._threads.get(lane, [])))
            for _ in range(missing):
                self._spawn(lane, partial(self._step_thread, lane))

    def _spawn(self, kind: str, work: Callable[[], None]) -> None:
        group = self._threads.setdefault(kind, [])
        # Daemons: one that never ends must not keep a process that was told to.
        thread = threading.Thread(target=work, name=f"{kind}-{len(group)}", daemon=True)
        group.append(thread)
        thread.start()
