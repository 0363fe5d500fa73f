"""What may be done now, in every environment: the controller's whole state, without a thread or a clock in it.

Nothing of it is about the host, and losing it costs no more than a few attempts. Whoever uses it holds a lock, and
says what time it is, in monotonic seconds; a suspended machine or a set clock so changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.control.backoff import Failures, delay
from reconciler.control.board import Board, Lane
from reconciler.control.host import Trouble
from reconciler.control.queue import KeyQueue
from reconciler.control.repairs import Repairs
from reconciler.lib.errors import CancelledError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step

REST_SECONDS = 0.05
"""Between two passes of one environment, so that a storm of events costs little."""

_LONGEST_REST_SECONDS = 0.5
_LONGEST_PASS_DELAY = 60.0
_RESYNC_SPREAD = 0.1
_FOR_EVER = float("inf")


@dataclass(slots=True)
class _Running:
    step: Step
    since: float


@dataclass(slots=True)
class _Environment:
    """What is known of one environment. `next_at` is when the next pass begins by itself."""

    failures: Failures
    repairs: Repairs = field(default_factory=Repairs)
    running: dict[str, _Running] = field(default_factory=dict)
    generation: int = 0
    planned: frozenset[str] = frozenset()
    touched: set[str] = field(default_factory=set)
    """Objects that something was done to since the pass began: its plan says nothing about them."""
    passing: bool = False
    passes: int = 0
    void: bool = False
    """What was wanted may have changed since the pass began: nothing of its plan is done."""
    pass_failures: int = 0
    floor: float = 0.0
    next_at: float = _FOR_EVER
    reserved: bool = False
    objects: frozenset[str] | None = None
    """Which ones are reserved; None for all."""
    reserved_in: int = 0

    def free(self, target: str) -> bool:
        """Whether a step may begin on an object, going by the plan of the current pass."""
        if self.reserved and (self.objects is None or target in self.objects):
            return False
        return target not in self.running and target not in self.touched


class Wheel:
    """Keeps account of passes, steps, delays and reservations. Nothing here blocks."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311  # spreads retries; nobody gains by guessing it
        self._queue = KeyQueue()
        self._board = Board()
        self._environments: dict[str, _Environment] = {}

    def poke(self, environment: str, at: float) -> None:
        """Asks for a pass at `at`."""
        self._queue.poke(environment, at)

    def next_due(self) -> float | None:
        """When `begin` has something to give if nothing happens before."""
        return self._queue.next_due()

    # One pass: begin, look and put_up or failed, end.

    def begin(self, now: float) -> str | None:
        """The environment to look at now, which nobody else gets before its `end`; None if none is due."""
        environment = self._queue.take(now)
        if environment is not None:
            state = self._state(environment)
            state.touched.clear()
            state.void = False
            state.passing = True
            state.passes += 1
            state.next_at = _FOR_EVER
        return environment

    def look(self, environment: str, generation: int, plan: Plan, now: float) -> list[Step]:
        """The steps of a plan that wait for no other step, nor for their time."""
        state = self._state(environment)
        state.pass_failures = 0
        if generation != state.generation:
            state.generation = generation
            state.failures.forget(None)
            state.repairs.forget(None)
        ids = frozenset(step.id for step in plan.steps)
        state.planned = ids
        state.failures.look(ids, now)
        state.repairs.look(ids, state.running, now)
        ready = []
        for step in plan.steps:
            target = step.action.object
            if not state.free(target) or not ids.isdisjoint(step.needs):
                continue
            # Asked in any case: what was undone is to be known as soon as it is seen.
            due = state.repairs.planned(target, step.id, now)
            due = max(due, state.failures.due(target) or due)
            if due <= now:
                ready.append(step)
            else:
                state.next_at = min(state.next_at, due)
        # At last, since an object may have become contended by a later step of its own.
        return [step for step in ready if state.repairs.contended(step.action.object, now) is None]

    def put_up(self, environment: str, steps: Sequence[Step], resync: float, now: float) -> tuple[str, ...]:
        """Lets steps of the last `look` begin, instead of those that were put up before. Returns their ids."""
        state = self._state(environment)
        free = [] if state.void else [step for step in steps if state.free(step.action.object)]
        self._board.put_up(environment, free)
        state.floor = REST_SECONDS
        if state.generation:
            state.next_at = min(
                state.next_at, now + resync * self._chance.uniform(1 - _RESYNC_SPREAD, 1 + _RESYNC_SPREAD)
            )
        return tuple(step.id for step in free)

    def failed(self, environment: str, now: float) -> None:
        """The host could not be looked at, so nothing is begun (I4) until it can."""
        state = self._state(environment)
        self._board.withdraw(environment)
        state.pass_failures += 1
        state.floor = delay(state.pass_failures, None, self._chance, _LONGEST_PASS_DELAY)
        state.next_at = now + state.floor

    def look_again(self, environment: str, now: float) -> None:
        """The pass was right, but whoever follows along did not hear of it."""
        state = self._state(environment)
        state.next_at = min(state.next_at, now + _LONGEST_PASS_DELAY)

    def next_in(self, environment: str, now: float) -> float | None:
        """Seconds from `now` until the next pass that nobody asks for."""
        at = self._state(environment).next_at
        return None if at == _FOR_EVER else max(0.0, at - now)

    def end(self, environment: str, seconds: float, now: float) -> None:
        """Ends a pass that took `seconds`: at most half of the time is spent with looking."""
        state = self._state(environment)
        state.passing = False
        self._queue.not_before(environment, now + max(state.floor, min(seconds, _LONGEST_REST_SECONDS)))
        if state.next_at != _FOR_EVER:
            self._queue.poke(environment, state.next_at, asked=False)
        self._queue.rest(environment)
        if not (state.running or state.reserved or environment in self._queue):
            self._queue.drop(environment)
            del self._environments[environment]

    # Steps.

    def waiting(self, lane: Lane) -> int:
        """How many steps could begin in this lane."""
        return self._board.count(lane)

    def take(self, lane: Lane, now: float) -> tuple[str, Step] | None:
        """A step to do now, with its environment, or None. Its object is in flight until `ended`."""
        taken = self._board.take(lane)
        if taken is not None:
            environment, step = taken
            self._state(environment).running[step.action.object] = _Running(step, now)
        return taken

    def ended(self, environment: str, step: Step, outcome: Outcome, now: float) -> None:
        """Takes note of how a step ended, and asks for a pass."""
        state, target = self._state(environment), step.action.object
        del state.running[target]
        state.touched.add(target)
        if outcome.result.ok:
            state.failures.succeeded(target, step.id, state.planned)
            if not step.action.recurs:
                state.repairs.succeeded(target, step.id, now)
        elif outcome.result is Result.FAILED and not isinstance(outcome.error, CancelledError):
            state.failures.failed(target, step.id, outcome.error, now)
        else:
            state.failures.waited(target, now)
        self._queue.poke(environment, now)

    # Reservations.

    def reserve(self, environment: str, objects: frozenset[str] | None) -> None:
        """Keeps steps on these objects from beginning, and with None also passes. One at a time, until `release`."""
        state = self._state(environment)
        state.reserved, state.objects = True, objects
        state.reserved_in = state.passes if state.passing else 0
        self._board.withdraw(environment, objects)
        if objects is None:
            self._queue.hold(environment)

    def in_the_way(self, environment: str) -> str | None:
        """What a reservation still has to wait for: the id of a step, or a pass; None if it holds."""
        state = self._state(environment)
        for target, running in state.running.items():
            if state.objects is None or target in state.objects:
                return running.step.id
        return "a pass" if state.passing and state.reserved_in == state.passes else None

    def release(self, environment: str, now: float) -> None:
        """The other end of `reserve`, with a pass after it."""
        state = self._state(environment)
        state.reserved = False
        if state.objects is None:
            self._queue.rest(environment)
        else:
            state.touched |= state.objects
        self._queue.poke(environment, now)

    # What people ask.

    def forget(self, environment: str, target: str | None, now: float) -> None:
        """Somebody wants it tried at once: delays and contentions end; None means those of all objects."""
        self._queue.not_before(environment, None)
        state = self._environments.get(environment)
        if state is not None:
            state.failures.forget(target)
            state.repairs.forget(target)
            if target is None:
                state.pass_failures = 0
                state.void = True
                self._board.withdraw(environment)
        self._queue.poke(environment, now)

    def troubles(self, environment: str, now: float) -> Mapping[str, Trouble]:
        """The objects that are worked on, failing or given up."""
        state = self._environments.get(environment)
        if state is None:
            return {}
        failures = dict(state.failures.wanted())
        contended = state.repairs.all_contended(now)
        found = {}
        for target in sorted({*failures, *contended, *state.running}):
            failure, until, running = failures.get(target), contended.get(target), state.running.get(target)
            due = max([at for at in (failure.due if failure else None, until) if at is not None], default=None)
            found[target] = Trouble(
                object=target,
                attempts=failure.attempts if failure else 0,
                retry_in=None if running or due is None else max(0.0, due - now),
                error=failure.error if failure else None,
                contended=until is not None,
                in_flight=running.step.action.verb if running else None,
                since=running.since if running else None,
            )
        return found

    def busy(self, environment: str | None = None) -> bool:
        """Whether a pass that was asked for or a step is still to come or to end; None for any environment."""
        return any(self._busy(name) for name in (self._names() if environment is None else (environment,)))

    def _busy(self, environment: str) -> bool:
        state = self._environments.get(environment)
        running = state is not None and (state.passing or bool(state.running))
        return running or self._queue.asked(environment) or self._board.has(environment)

    def _names(self) -> Collection[str]:
        return {*self._environments, *self._queue.keys()}

    def _state(self, environment: str) -> _Environment:
        state = self._environments.get(environment)
        if state is None:
            state = self._environments[environment] = _Environment(Failures(self._chance))
        return state
