"""A host whose objects are names, and a run of the controller's wheel on it without threads, in simulated time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count

from reconciler.control.board import Lane
from reconciler.control.host import PassReport
from reconciler.control.passes import attempt, run_pass
from reconciler.control.wheel import Wheel
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.actions import Action, BuildImage, DeleteBridge, DeleteTap, EvictEntries, StartVm, StopVm
from reconciler.model.artifacts import DebianImage, Image
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step
from tests.fakes.clock import FakeClock

RETRYABLE = BangerError("not this time", error_class=ErrorClass.RETRYABLE)
TERMINAL = BangerError("never like this")


def quick(name: str) -> Action:
    return DeleteTap(name=name, reason="test")


def bridge(name: str) -> Action:
    return DeleteBridge(name=name, reason="test")


def start(name: str) -> Action:
    return StartVm(name=name, reason="test", vm=None, network=None, address=None)  # type: ignore[arg-type]  # a label


def stop(name: str) -> Action:
    return StopVm(name=name, reason="test")


def build(name: str) -> Action:
    return BuildImage(
        name=name, reason="test", image=Image(name=name, source=DebianImage(suite="s", packages=()), kernel="k")
    )


def evict() -> Action:
    return EvictEntries(name="cache", reason="test", entries=())


def nothing(environment: str) -> None:
    """The usual `on_plan`."""


@dataclass
class Thing:
    """Something to do: `action` is planned while it is not `done`.

    needs: things that come before it. seconds: how long doing it takes. error: why it fails, if it does.
    effective: whether doing it is seen afterwards.
    """

    action: Action
    needs: tuple[Thing, ...] = ()
    seconds: float = 0.0
    error: BangerError | None = None
    result: Result | None = None
    effective: bool = True
    done: bool = False

    def __post_init__(self) -> None:
        self.id = self.action.id


@dataclass
class FakeHost:
    """Implements `control.host.Host` over things, by environment."""

    things: dict[str, list[Thing]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    reports: list[PassReport] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    asked: int = 0
    """How often `launchable` was."""
    broken: Exception | None = None
    """What observing raises."""
    every: float = 300.0
    on_plan: Callable[[str], None] = nothing
    """Called after the host was observed, before the plan is made of it."""

    def add(self, environment: str, things: Iterable[Thing]) -> list[Thing]:
        added = list(things)
        self.things.setdefault(environment, []).extend(added)
        self.generations.setdefault(environment, 1)
        return added

    def generation(self, environment: str) -> int:
        return self.generations.get(environment, 0)

    def resync(self, environment: str) -> float:
        return self.every

    def plan(self, environment: str) -> Plan:
        if self.broken is not None:
            raise self.broken
        open_things = [thing for thing in self.things.get(environment, []) if not thing.done]
        self.on_plan(environment)
        there = {thing.id for thing in open_things}
        return Plan(
            environment=environment,
            steps=tuple(
                Step(thing.action, tuple(need.id for need in thing.needs if need.id in there)) for thing in open_things
            ),
        )

    def launchable(self, environment: str, step: Step) -> bool:
        self.asked += 1
        return step.action.object not in self.paused

    def thing(self, environment: str, step: Step) -> Thing:
        wanted = step.id
        return next(thing for thing in self.things[environment] if thing.id == wanted)

    def run(self, environment: str, step: Step) -> Outcome:
        thing = self.thing(environment, step)
        result = thing.result or (Result.FAILED if thing.error else Result.DONE)
        if result.ok and thing.effective:
            thing.done = True
        return Outcome(step=step.id, object=step.action.object, result=result, error=thing.error)

    def settled(self, report: PassReport) -> None:
        self.reports.append(report)


@dataclass(frozen=True)
class Ran:
    """A step that was tried, in simulated seconds."""

    began: float
    ended: float
    environment: str
    step: str
    target: str


class Simulation:
    """Turns a `Wheel` as the controller's threads do, one thing after another, from time 0."""

    def __init__(self, host: FakeHost, *, workers: int = 8, starts: int = 2, seed: int = 1) -> None:
        self.host = host
        self.clock = FakeClock(0.0)
        self.wheel = Wheel(random.Random(seed))
        self.ran: list[Ran] = []
        self.passes: list[tuple[float, str]] = []
        self._most = {Lane.QUICK: workers, Lane.BUILD: workers, Lane.START: starts, Lane.STOP: 32, Lane.GUEST: 32}
        self._running = dict.fromkeys(Lane, 0)
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def now(self) -> float:
        return self.clock.time

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def each(self, seconds: float, until: float, what: Callable[[], None]) -> None:
        """Does `what` again and again, `seconds` apart."""

        def again() -> None:
            what()
            if self.now + seconds <= until:
                self.at(self.now + seconds, again)

        self.at(self.now + seconds, again)

    def poke(self, *environments: str, times: int = 1) -> None:
        for environment in environments or tuple(self.host.things):
            for _ in range(times):
                self.wheel.poke(environment, self.now)

    def run(self, until: float) -> None:
        while True:
            self._turn()
            due, event = self.wheel.next_due(), self._events[0][0] if self._events else None
            nexts = [when for when in (due, event) if when is not None]
            if not nexts or min(nexts) > until:
                self.clock.time = max(self.clock.time, until)
                return
            self.elapse(max(0.0, min(nexts) - self.now))

    def elapse(self, seconds: float) -> None:
        """Lets time pass, in which steps end, and no pass begins: also from within one."""
        self.clock.time += seconds
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def tried(self, target: str) -> list[Ran]:
        return [ran for ran in self.ran if ran.target == target]

    def _turn(self) -> None:
        while (environment := self.wheel.begin(self.now)) is not None:
            self.passes.append((self.now, environment))
            run_pass(self.wheel, nullcontext(), self.host, self.clock, environment, offer=lambda: None)
        for lane in Lane:
            while self._running[lane] < self._most[lane]:
                taken = self.wheel.take(lane, self.now)
                if taken is None:
                    break
                self._begin(lane, *taken)

    def _begin(self, lane: Lane, environment: str, step: Step) -> None:
        began = self.now
        self._running[lane] += 1

        def end() -> None:
            outcome = attempt(self.host, environment, step)
            self._running[lane] -= 1
            self.ran.append(Ran(began, self.now, environment, step.id, step.action.object))
            self.wheel.ended(environment, step, outcome, self.now)

        self.at(began + self.host.thing(environment, step).seconds, end)


def simulation(*things: Thing, **options: int) -> Simulation:
    """One environment, `env`, about to be looked at for the first time."""
    host = FakeHost()
    host.add("env", things)
    turned = Simulation(host, **options)
    turned.poke("env")
    return turned
