"""Waiting: each VM within its own time, no longer than anybody can still become ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.control.readiness import Waiter
from reconciler.drivers.guest import probe
from reconciler.lib import cancel
from reconciler.lib.errors import CancelledError
from reconciler.lib.paths import Paths
from reconciler.model.observed import ObservedVm
from reconciler.model.status import ObjectStatus, State
from reconciler.model.vm import Ready
from tests.fakes.clock import FakeClock
from tests.fakes.host import vm

BEGIN = 1_000_000.0


class Guests:
    """Running VMs by name, and the time at which each begins to answer."""

    def __init__(self, answers: Mapping[str, float], *, timeout: float = 5.0) -> None:
        self.clock = FakeClock(BEGIN)
        self.seen: list[str] = []
        self.told: list[dict[str, State]] = []
        self.answers = answers
        self.vms = {
            name: ObservedVm(
                name=name,
                id=f"id-{name}",
                spec=vm(name, ready=Ready(ssh=True, timeout=timeout)),
                mac="",
                disk=True,
                pid=number + 2,
                forwards={"22": number + 1},
                started_at=BEGIN,
            )
            for number, name in enumerate(answers)
        }

    def answers_now(self, host: str, port: int, timeout: float) -> bool:
        return self.clock.time >= BEGIN + list(self.answers.values())[port - 1]

    def waiter(self, tmp_path: Path) -> Waiter:
        def tell(statuses: Sequence[ObjectStatus]) -> None:
            self.told.append({status.name: status.state for status in statuses})

        return Waiter(
            environment="env",
            paths=Paths.discover({"BANGER_HOME": str(tmp_path)}),
            clock=self.clock,
            observe=lambda: self.vms,
            seen_ready=lambda vm: self.seen.append(vm.name),
            tell=tell,
        )


@pytest.fixture(autouse=True)
def no_cancellation() -> Iterator[None]:
    yield
    cancel.reset()


def wait(
    guests: Guests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float | None = None
) -> dict[str, ObjectStatus]:
    monkeypatch.setattr(probe, "ssh_banner", guests.answers_now)
    return {status.name: status for status in guests.waiter(tmp_path).wait(list(guests.vms), timeout)}


def test_it_ends_when_the_last_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({"a": 0.0, "b": 2.0})
    found = wait(guests, tmp_path, monkeypatch)
    assert {name: status.ready for name, status in found.items()} == {"a": True, "b": True}
    assert BEGIN + 2 <= guests.clock.time < BEGIN + 3
    assert guests.seen == ["a", "b"]
    assert guests.told == [{"a": State.READY, "b": State.STARTING}, {"a": State.READY, "b": State.READY}]


def test_each_has_its_own_time_and_a_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({"a": 100.0}, timeout=5.0)
    found = wait(guests, tmp_path, monkeypatch)
    assert not found["a"].ready and found["a"].message == "its ssh server does not answer"
    assert BEGIN + 5 <= guests.clock.time < BEGIN + 6


def test_one_time_for_all_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({"a": 8.0}, timeout=5.0)
    assert wait(guests, tmp_path, monkeypatch, timeout=20.0)["a"].ready
    late = Guests({"a": 8.0}, timeout=50.0)
    assert not wait(late, tmp_path, monkeypatch, timeout=0.0)["a"].ready
    assert late.clock.slept == []


def test_a_vm_that_stopped_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    guests = Guests({"a": 0.0})
    guests.vms["a"] = replace(guests.vms["a"], pid=None)
    found = wait(guests, tmp_path, monkeypatch, timeout=1000.0)
    assert found["a"].state is State.FAILED and guests.clock.slept == []


def test_a_vm_that_vanishes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({"a": 100.0, "b": 0.0})

    def vanish(seconds: float) -> None:
        guests.vms.pop("a", None)

    guests.clock.on_sleep = vanish
    found = wait(guests, tmp_path, monkeypatch, timeout=1000.0)
    assert found["b"].ready and not found["a"].ready
    assert len(guests.clock.slept) == 1


def test_ready_is_noted_once_for_each_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    guests = Guests({"a": 0.0})
    guests.vms["a"] = replace(guests.vms["a"], ready_at=BEGIN)
    assert wait(guests, tmp_path, monkeypatch)["a"].ready and guests.seen == []


def test_nobody_to_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({})
    assert wait(guests, tmp_path, monkeypatch) == {} and guests.told == []


def test_ctrl_c_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests({"a": 100.0}, timeout=1000.0)
    guests.clock.on_sleep = lambda seconds: cancel.cancel()
    with pytest.raises(CancelledError):
        wait(guests, tmp_path, monkeypatch)
    assert len(guests.clock.slept) == 1
