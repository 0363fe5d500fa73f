"""The controller's threads: what runs beside what, who waits for whom, and how it all ends."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from reconciler.control.reconciler import PassReport, Reconciler
from reconciler.lib import cancel
from reconciler.lib.clock import SystemClock
from reconciler.model.plan import Step
from tests.fakes.sched import RETRYABLE, Thing, bridge, quick, start
from tests.fakes.threaded import PATIENCE, Gate, ThreadedHost, controller


@pytest.fixture(autouse=True)
def no_cancellation() -> Iterator[None]:
    yield
    cancel.reset()


def test_everything_is_done_in_parallel_with_as_many_threads_as_allowed() -> None:
    host = ThreadedHost()
    things = host.add("env", [Thing(quick(f"v{n}")) for n in range(12)])
    host.inside = gate = Gate()
    with controller(host, workers=4) as turned:
        turned.poke("env")
        gate.wait(4)
        gate.open.set()
        assert turned.idle_wait("env", PATIENCE)
    assert host.most == 4 and all(thing.done for thing in things) and not host.wrong


def test_a_slow_step_delays_nothing_but_what_needs_it() -> None:
    host = ThreadedHost()
    slow = Thing(start("slow"))
    needs = Thing(quick("needs"), needs=(slow,))
    chain = [Thing(bridge("lab"))]
    chain.append(Thing(quick("a"), needs=(chain[0],)))
    host.add("env", [slow, needs, *chain])
    gate, done = Gate(), threading.Event()

    def inside(environment: str, step: Step) -> None:
        if step.action.object == "vm/slow":
            gate(environment, step)
        if step.action.object == "vm/a":
            done.set()

    host.inside = inside
    with controller(host) as turned:
        turned.poke("env")
        gate.wait()
        assert done.wait(PATIENCE) and not needs.done
        assert turned.troubles("env")["vm/slow"].in_flight == "start"
        gate.open.set()
        assert turned.idle_wait("env", PATIENCE)
        assert needs.done


def test_a_poke_while_its_pass_runs_makes_one_more() -> None:
    host = ThreadedHost()
    host.add("env", [])
    gate = Gate()
    host.on_plan = lambda environment: gate(environment, Step(quick("x")))
    with controller(host) as turned:
        turned.poke("env")
        gate.wait()
        for _ in range(1000):
            turned.poke("env")
        gate.open.set()
        assert turned.idle_wait("env", PATIENCE)
        assert len(host.reports) == 2


def test_two_environments_are_looked_at_side_by_side() -> None:
    host = ThreadedHost()
    both = threading.Barrier(2, timeout=PATIENCE)
    for name in ("a", "b"):
        host.add(name, [])

    def meet(environment: str) -> None:
        both.wait()

    host.on_plan = meet
    with controller(host) as turned:
        turned.poke("a")
        turned.poke("b")
        assert turned.idle_wait(None, PATIENCE)
    assert [report.error for report in host.reports] == [None, None]


def test_a_delayed_poke_comes_by_itself() -> None:
    host = ThreadedHost()
    host.add("env", [])
    looked = threading.Event()
    host.on_plan = lambda environment: looked.set()
    with controller(host) as turned:
        turned.poke("env", delay=0.05)
        assert looked.wait(PATIENCE)


def test_threads_that_sleep_are_woken_by_whatever_asks() -> None:
    host = ThreadedHost()
    with controller(host) as turned:
        for number in range(21):
            name = f"e{number}"
            host.add(name, [Thing(quick("a"))])
            if number % 3 == 0:
                turned.poke(name)
            elif number % 3 == 1:
                turned.forget(name)
            else:
                with turned.exclusive(name):
                    pass
            assert turned.idle_wait(name, PATIENCE)
    assert len(host.ran) == 21


def test_threads_that_were_idle_often_are_still_joined_by_others() -> None:
    host = ThreadedHost()
    with controller(host, workers=4) as turned:
        for number in range(5):
            host.add(f"e{number}", [Thing(quick("a"))])
            turned.poke(f"e{number}")
            assert turned.idle_wait(None, PATIENCE)
        host.inside = gate = Gate()
        host.add("env", [Thing(quick(f"v{n}")) for n in range(4)])
        turned.poke("env")
        gate.wait(4)
        gate.open.set()
        assert turned.idle_wait(None, PATIENCE)


def test_a_defect_in_a_step_is_its_failure_and_costs_no_thread() -> None:
    host = ThreadedHost()
    thing = host.add("env", [Thing(quick("a"))])[0]
    broken = [True]

    def inside(environment: str, step: Step) -> None:
        if broken.pop() if broken else False:
            raise ZeroDivisionError("oops")

    host.inside = inside
    with controller(host, workers=1) as turned:
        turned.poke("env")
        assert turned.idle_wait("env", PATIENCE)
        error = turned.troubles("env")["vm/a"].error
        assert error is not None and "ZeroDivisionError: oops" in error.cause
        turned.forget("env", "vm/a")
        assert turned.idle_wait("env", PATIENCE)
        assert thing.done and not turned.troubles("env")


def test_whoever_follows_along_may_fail_and_the_host_is_still_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    host = ThreadedHost()
    thing = host.add("env", [Thing(quick("a"))])[0]
    told: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    def deaf(report: PassReport) -> None:
        raise KeyError("nobody")

    monkeypatch.setattr(host, "settled", deaf)
    with controller(host) as turned:
        turned.poke("env")
        assert turned.idle_wait("env", PATIENCE)
        assert thing.done and turned.alive()
    assert set(told) == {KeyError}


def test_stopping_lets_end_what_runs_and_begins_nothing() -> None:
    host = ThreadedHost()
    things = host.add("env", [Thing(quick(f"v{n}")) for n in range(5)])
    host.inside = gate = Gate()
    turned = Reconciler(host, SystemClock(), workers=1, starts=1)
    assert not turned.alive()
    turned.poke("env")
    turned.start()
    gate.wait()
    assert turned.alive() and turned.busy("env")
    assert not turned.stop(0.01)
    gate.open.set()
    assert turned.stop(PATIENCE)
    assert [thing.done for thing in things] == [True, False, False, False, False]
    assert not turned.alive()


def test_never_two_steps_on_one_object_nor_anything_in_a_reserved_environment() -> None:
    """Everything at once, at random, and in the end all is done."""
    host = ThreadedHost(every=0.02)
    environments = [f"e{n}" for n in range(3)]
    chance = random.Random(7)
    for name in environments:
        vms = [Thing(start(f"v{n}")) for n in range(40)]
        host.add(
            name, [*vms, *(Thing(quick(f"v{n}")) for n in range(40)), *(Thing(bridge(f"n{n}")) for n in range(20))]
        )
        host.things[name][5].error = RETRYABLE
    rest = threading.Event()

    def busy_for_a_moment(environment: str, step: Step) -> None:
        rest.wait(chance.random() * 0.004)

    host.inside = busy_for_a_moment
    over = threading.Event()

    def disturb(seed: int) -> None:
        mine = random.Random(seed)
        while not over.is_set():
            name = mine.choice(environments)
            match mine.randrange(4):
                case 0:
                    turned.poke(name, delay=mine.random() * 0.01)
                case 1:
                    turned.forget(name, None)
                case 2:
                    with turned.exclusive(name):
                        host.closed.add(name)
                        rest.wait(mine.random() * 0.003)
                        host.closed.discard(name)
                case _:
                    undone = mine.choice(host.things[name])
                    with turned.exclusive(name, frozenset({undone.action.object})):
                        if host.running[name, undone.action.object]:
                            host.wrong.append("a step on what is reserved")
                        undone.done = False

    with controller(host, workers=6, starts=4) as turned:
        for name in environments:
            turned.poke(name)
        threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        over.wait(1.0)
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
        for name in environments:
            host.things[name][5].error = None
            turned.forget(name, None)
        assert turned.idle_wait(None, PATIENCE)
    assert not host.wrong
    assert len(host.ran) > 300 and host.most > 4
    assert all(thing.done for name in environments for thing in host.things[name])
