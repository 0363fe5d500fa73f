"""Every guest that boots is seen ready, whatever the others do."""

from __future__ import annotations

import threading

import pytest

from reconciler.daemon import views
from reconciler.daemon.engine import Engine
from reconciler.daemon.readying import Readying
from reconciler.lib.clock import SystemClock
from reconciler.model.observed import ObservedVm
from reconciler.model.vm import Ready
from reconciler.observe.guests import Readiness
from tests.fakes.host import Host, desired, vm

PATIENCE = 30.0


class Told:
    """What was told, and a way to wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.ready: list[str] = []
        self.late: list[str] = []

    def is_ready(self, environment: str, guest: ObservedVm) -> None:
        with self._changed:
            self.ready.append(guest.name)
            self._changed.notify_all()

    def is_late(self, environment: str, guest: ObservedVm, readiness: Readiness) -> None:
        with self._changed:
            self.late.append(f"{guest.name}: {readiness.message}")
            self._changed.notify_all()

    def wait(self, *, ready: int = 0, late: int = 0) -> None:
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.ready) >= ready and len(self.late) >= late, PATIENCE)
            assert enough, (self.ready, self.late)


@pytest.fixture
def engine(host: Host) -> Engine:
    return Engine(host.paths, SystemClock())


def look(readying: Readying, engine: Engine) -> None:
    booting = [vm for vm in views.observe_vms(engine, "env").values() if vm.running and vm.ready_at is None]
    readying.look("env", booting)


def test_a_guest_that_hangs_delays_no_other_and_is_told_once(host: Host, engine: Engine) -> None:
    """I7."""
    host.silent = {"env/hangs"}
    names = [f"vm{number}" for number in range(20)]
    host.apply(desired(vm("hangs", ready=Ready(timeout=0.0)), *(vm(name) for name in names)))
    told = Told()
    readying = Readying(engine, told.is_ready, told.is_late)
    look(readying, engine)
    told.wait(ready=20, late=1)
    assert sorted(told.ready) == sorted(names)
    assert told.late == ["hangs: its ssh server does not answer"]
    assert {name for name, seen in views.observe_vms(engine, "env").items() if seen.ready_at is None} == {"hangs"}
    # It comes up after all, and is seen: a new look does not forget that it was late.
    host.silent = set()
    readying._put_off("env", ["hangs"], 0.0)
    look(readying, engine)
    told.wait(ready=21)
    assert len(told.late) == 1
    readying.stop()


def test_its_thread_ends_with_the_last_guest_and_comes_back_with_the_next(host: Host, engine: Engine) -> None:
    host.apply(desired(vm("a")))
    told = Told()
    readying = Readying(engine, told.is_ready, told.is_late)
    look(readying, engine)
    told.wait(ready=1)
    for thread in threading.enumerate():
        if thread.name == "ready-env":
            thread.join(PATIENCE)
            assert not thread.is_alive()
    look(readying, engine)
    assert not [thread for thread in threading.enumerate() if thread.name == "ready-env"]
    host.apply(desired(vm("a"), vm("b")))
    look(readying, engine)
    told.wait(ready=2)
    assert told.ready == ["a", "b"]
    readying.stop()


def test_what_ends_meanwhile_is_no_longer_asked(host: Host, engine: Engine) -> None:
    host.silent = {"env/a"}
    host.apply(desired(vm("a")))
    told = Told()
    readying = Readying(engine, told.is_ready, told.is_late)
    look(readying, engine)
    host.backend.power_cut()
    for thread in threading.enumerate():
        if thread.name == "ready-env":
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert told.ready == [] and told.late == []
