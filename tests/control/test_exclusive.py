"""Reservations: an operation has what it changes for itself, and nobody else waits longer than for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError
from tests.fakes.sched import Thing, quick
from tests.fakes.threaded import PATIENCE, Gate, ThreadedHost, controller, queued


@pytest.fixture(autouse=True)
def no_cancellation() -> Iterator[None]:
    yield
    cancel.reset()


def test_it_waits_for_what_runs_and_lets_nothing_begin() -> None:
    host = ThreadedHost()
    things = host.add("env", [Thing(quick("a")), Thing(quick("b"))])
    host.inside = gate = Gate()
    entered = threading.Event()

    def operation() -> None:
        with turned.exclusive("env"):
            host.closed.add("env")
            assert things[0].done and not things[1].done and not any(host.running.values())
            turned.poke("env")
            host.closed.clear()
            entered.set()

    with controller(host, workers=1) as turned:
        turned.poke("env")
        gate.wait()
        thread = threading.Thread(target=operation)
        thread.start()
        queued(turned, 1)
        gate.open.set()
        assert entered.wait(PATIENCE)
        thread.join(PATIENCE)
        assert turned.idle_wait("env", PATIENCE)
        assert things[1].done and not host.wrong, "the environment is looked at after it"


def test_other_objects_are_kept_meanwhile() -> None:
    host = ThreadedHost()
    a, b = host.add("env", [Thing(quick("a")), Thing(quick("b"))])
    with controller(host) as turned:
        with turned.exclusive("env", frozenset({"vm/a"})):
            turned.poke("env")
            assert turned.idle_wait("env", PATIENCE)
            assert b.done and not a.done
        assert turned.idle_wait("env", PATIENCE)
        assert a.done


def test_a_timeout_names_what_it_waited_for_and_leaves_no_trace() -> None:
    host = ThreadedHost()
    thing = host.add("env", [Thing(quick("a"))])[0]
    host.inside = gate = Gate()
    with controller(host) as turned:
        turned.poke("env")
        gate.wait()
        with (
            pytest.raises(BangerError, match="environment env is busy with disconnect vm/a") as caught,
            turned.exclusive("env", timeout=0.05),
        ):
            pytest.fail("not while that runs")
        assert caught.value.error_class.worth_retrying
        host.add("env", [Thing(quick("b"))])
        gate.open.set()
        assert turned.idle_wait("env", PATIENCE)
        assert thing.done and "disconnect vm/b" in host.ran
        with turned.exclusive("env", timeout=PATIENCE):
            pass


def test_they_queue_up_in_order() -> None:
    host = ThreadedHost()
    host.add("env", [])
    entered: list[int] = []

    def operation(number: int) -> None:
        with turned.exclusive("env", frozenset({f"vm/{number}"})):
            entered.append(number)

    with controller(host) as turned:
        threads = [threading.Thread(target=operation, args=(number,)) for number in range(5)]
        with turned.exclusive("env"):
            for number, thread in enumerate(threads):
                thread.start()
                queued(turned, number + 2)
            with (
                pytest.raises(BangerError, match="busy with another operation"),
                turned.exclusive("env", timeout=0.0),
            ):
                pytest.fail("not out of turn")
            assert not entered
        for thread in threads:
            thread.join(PATIENCE)
        assert entered == list(range(5)) and not turned._lines


def test_another_environment_is_not_concerned() -> None:
    host = ThreadedHost()
    thing = host.add("b", [Thing(quick("x"))])[0]
    with controller(host) as turned, turned.exclusive("a"), turned.exclusive("c"):
        turned.poke("b")
        assert turned.idle_wait("b", PATIENCE)
        assert thing.done


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_it_gives_up_when_all_ends(how: str) -> None:
    host = ThreadedHost()
    host.add("env", [Thing(quick("a"))])
    host.inside = gate = Gate()
    raised: list[type[BaseException]] = []

    def operation() -> None:
        try:
            with turned.exclusive("env"):
                pass
        except CancelledError as problem:
            raised.append(type(problem))

    with controller(host) as turned:
        turned.poke("env")
        gate.wait()
        thread = threading.Thread(target=operation)
        thread.start()
        if how == "cancel":
            cancel.cancel()
        else:
            assert not turned.stop(0.0), "a step still runs"
        thread.join(PATIENCE)
        assert raised == [CancelledError]
        gate.open.set()


def test_a_block_that_raises_ends_it_too() -> None:
    host = ThreadedHost()
    thing = host.add("env", [Thing(quick("a"))])[0]
    with controller(host) as turned:
        with pytest.raises(KeyError), turned.exclusive("env"):
            raise KeyError
        assert turned.idle_wait("env", PATIENCE)
        assert thing.done
