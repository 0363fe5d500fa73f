"""One step alone, as a controller runs it: one try, its intent before, its end after, and what a stop leaves behind."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest

from reconciler.drivers.guest import probe as guest_probe
from reconciler.drivers.vmm import probe
from reconciler.execute.runner import Perform, run_step
from reconciler.execute.tools import Tools
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.model import actions as a
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Step
from reconciler.model.vm import Ready
from reconciler.store.inventory import VmRow
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import FakeClock
from tests.fakes.host import Recorder, vm


def nothing(action: a.Action, tools: Tools, progress: Progress) -> None:
    pass


def run_one(tools: Tools, action: a.Action, *, attempts: int = 1, perform: Perform | None = None) -> Outcome:
    given = {"perform": perform} if perform else {}
    return run_step(Step(action), tools, Recorder(), lock=threading.Lock(), attempts=attempts, **given)


def put(tools: Tools, name: str = "dev", **fields: object) -> VmRow:
    row = VmRow(
        environment="env",
        name=name,
        id=f"id-{name}",
        spec=vm(name, ready=Ready(ssh=True, timeout=5.0)),
        created={},
        booted={},
        address=None,
        forwards={"22": 40_000},
        created_at=1.0,
        started_at=2.0,
    )
    tools.inventory.put_vm(dataclasses.replace(row, **fields))  # type: ignore[arg-type]  # the fields of a row
    return row


def row(tools: Tools, name: str = "dev") -> VmRow:
    found = tools.inventory.vm("env", name)
    assert found is not None
    return found


@pytest.fixture
def backend(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    assert isinstance(tools.backend, FakeBackend)
    monkeypatch.setattr(probe, "find", tools.backend.find)
    return tools.backend


def starts(tools: Tools, backend: FakeBackend, name: str = "dev") -> None:
    backend.add(tools.inventory.install, f"id-{name}")


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_it_is_tried_as_often_as_allowed(tools: Tools, attempts: int) -> None:
    tries = []

    def busy(action: a.Action, tools: Tools, progress: Progress) -> None:
        tries.append(action)
        raise BangerError("busy", error_class=ErrorClass.RETRYABLE)

    outcome = run_one(tools, a.DeleteTap(name="dev", reason="test"), attempts=attempts, perform=busy)
    assert len(tries) == attempts == outcome.attempts
    assert outcome.result is Result.FAILED and outcome.error is not None and outcome.error.cause == "busy"


def test_it_never_raises(tools: Tools) -> None:
    def defect(action: a.Action, tools: Tools, progress: Progress) -> None:
        raise KeyError("x")

    outcome = run_one(tools, a.DeleteTap(name="dev", reason="test"), perform=defect)
    assert outcome.error is not None and "unexpected error: KeyError" in outcome.error.cause


def test_nothing_is_begun_when_everything_is_to_end(tools: Tools) -> None:
    cancel.cancel()
    outcome = run_one(tools, a.DeleteTap(name="dev", reason="test"), perform=nothing)
    assert (outcome.result, outcome.attempts) == (Result.CANCELLED, 0)
    assert tools.journal._db.rows("SELECT 1 FROM intents") == []


def test_an_intent_that_was_rolled_back_ends_nobody_else_s(tools: Tools) -> None:
    outcome = run_one(tools, a.StopVm(name="nobody", reason="test"))
    assert outcome.result is Result.FAILED
    with tools.journal.intend("env", a.DeleteTap(name="other", reason="test")):
        pass  # it may get the number that the first one had
    assert tools.journal._db.rows("SELECT result FROM intents")[0]["result"] is None


@pytest.mark.parametrize("halt", [None, "stopped by hand"])
def test_a_stop_is_ours_from_before_it_begins(tools: Tools, halt: str | None) -> None:
    put(tools, ready_at=3.0)
    seen: list[VmRow] = []

    def look(action: a.Action, tools: Tools, progress: Progress) -> None:
        seen.append(row(tools))
        raise BangerError("the guest hangs")

    run_one(tools, a.StopVm(name="dev", reason="test", halt=halt), perform=look)
    assert [(r.started_at, r.ready_at, r.halted) for r in seen] == [(None, None, halt)]
    assert row(tools) == seen[0], "a stop that fails is still wanted"


def test_a_restart_does_not_forget_why_it_was_to_be_stopped(tools: Tools) -> None:
    put(tools, halted="stopped by hand")
    run_one(tools, a.StopVm(name="dev", reason="test", restart=True), perform=nothing)
    assert row(tools).halted == "stopped by hand"


def test_an_edit_keeps_a_vm_stopped_unless_it_is_released(tools: Tools) -> None:
    put(tools, halted="stopped by hand")
    run_one(tools, a.UpdateVm(name="dev", reason="test", vm=vm("dev", cpus=2), address=None))
    assert (row(tools).halted, row(tools).spec.cpus) == ("stopped by hand", 2)
    run_one(tools, a.UpdateVm(name="dev", reason="test", vm=vm("dev"), address=None, release=True))
    assert row(tools).halted is None


def test_an_approval_is_noted_on_each_vm_that_is_still_there(tools: Tools) -> None:
    for name in ("a", "b"):
        put(tools, name)
    approve = a.ApproveRemoval(name="env", reason="r", vms=("a", "gone"), digest="0" * 12, state="1" * 12)
    assert run_one(tools, approve).result is Result.DONE
    assert (row(tools, "a").condemned, row(tools, "b").condemned) == ("1" * 12, None)


def await_ready(timeout: float = 5.0) -> a.AwaitReady:
    return a.AwaitReady(name="dev", reason="test", timeout=timeout)


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], bool]) -> list[int]:
    asked: list[int] = []

    def banner(host: str, port: int, timeout: float) -> bool:
        asked.append(port)
        return answer()

    monkeypatch.setattr(guest_probe, "ssh_banner", banner)
    return asked


def test_a_guest_is_asked_until_it_answers(tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tools)
    starts(tools, backend)
    answers = iter([False, False, True])
    asked = answering(monkeypatch, lambda: next(answers))
    assert run_one(tools, await_ready()).result is Result.DONE
    assert asked == [40_000] * 3
    assert row(tools).ready_at == tools.clock.now()


def test_one_that_was_seen_ready_is_not_asked(
    tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tools, ready_at=3.0)
    starts(tools, backend)
    asked = answering(monkeypatch, lambda: False)
    assert run_one(tools, await_ready()).result is Result.DONE
    assert asked == []


def test_somebody_else_may_see_it_first(tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tools)
    starts(tools, backend)

    def seen_by_another() -> bool:
        tools.inventory.mark_ready("env", "dev", "id-dev", 2.0, 9.0)
        return False

    asked = answering(monkeypatch, seen_by_another)
    assert run_one(tools, await_ready()).result is Result.DONE
    assert len(asked) == 1 and row(tools).ready_at == 9.0


def test_a_guest_that_ends_is_waited_for_no_longer(
    tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tools)
    starts(tools, backend)

    def ends() -> bool:
        backend.power_cut()
        return False

    asked = answering(monkeypatch, ends)
    outcome = run_one(tools, await_ready(), attempts=4)
    assert outcome.error is not None and "vm dev ended before it was ready" in outcome.error.cause
    assert len(asked) == 1 and outcome.attempts == 1
    assert outcome.error.error_class is ErrorClass.TERMINAL


def test_waiting_ends_after_its_time_and_not_before_a_last_look(
    tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tools)
    starts(tools, backend)
    clock = tools.clock
    assert isinstance(clock, FakeClock)
    began, looks = clock.monotonic(), []
    answering(monkeypatch, lambda: bool(looks.append(clock.monotonic() - began)))
    outcome = run_one(tools, await_ready(2.0), attempts=4)
    assert outcome.error is not None
    assert outcome.error.cause == "vm dev is not ready after 2s: its ssh server does not answer"
    assert outcome.error.error_class is ErrorClass.RETRYABLE and outcome.attempts == 1
    assert 2.0 <= looks[-1] < 3.0 and row(tools).ready_at is None


def test_waiting_obeys_the_user(tools: Tools, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tools)
    starts(tools, backend)
    answering(monkeypatch, lambda: bool(cancel.cancel()))
    outcome = run_one(tools, await_ready(1e9))
    assert outcome.result is Result.CANCELLED and isinstance(outcome.error, CancelledError)
