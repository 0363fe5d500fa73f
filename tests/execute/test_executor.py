"""The executor: order, parallelism, isolation, cancellation, and intents that come before effects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from reconciler.execute import dispatch
from reconciler.execute.executor import Executor, Perform
from reconciler.execute.tools import Tools
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.model import actions as a
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step
from tests.fakes.host import Recorder, network, vm

PATIENCE = 30.0
"""Seconds after which a thread that should have come is given up: only a failing test waits so long."""


@pytest.fixture(autouse=True)
def no_cancellation() -> Iterator[None]:
    yield
    cancel.reset()


def step(name: str, *needs: str) -> Step:
    return Step(a.DeleteTap(name=name, reason="test"), tuple(f"disconnect vm/{need}" for need in needs))


def plan_of(*steps: Step) -> Plan:
    return Plan(environment="env", steps=steps)


def run(tools: Tools, perform: Perform, *steps: Step, parallel: int = 8) -> tuple[dict[str, Outcome], Recorder]:
    recorder = Recorder()
    done = Executor(tools, recorder, parallel=parallel, perform=perform).execute(plan_of(*steps))
    return {outcome.step.removeprefix("disconnect vm/"): outcome for outcome in done}, recorder


def nothing(action: a.Action, tools: Tools, progress: Progress) -> None:
    pass


def failing(*names: str, error: Callable[[], BaseException] = lambda: BangerError("no")) -> Perform:
    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        if action.name in names:
            raise error()

    return perform


def test_a_step_starts_when_all_that_it_needs_is_done(tools: Tools) -> None:
    done, recorder = run(tools, nothing, step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
    assert {outcome.result for outcome in done.values()} == {Result.DONE}
    place = {event: number for number, event in enumerate(recorder.order)}
    for before, after in (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")):
        assert place[f"-disconnect vm/{before}"] < place[f"+disconnect vm/{after}"]


def test_independent_steps_run_side_by_side(tools: Tools) -> None:
    together = threading.Barrier(3)

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        together.wait(PATIENCE)

    done, _ = run(tools, perform, step("a"), step("b"), step("c"))
    assert {outcome.result for outcome in done.values()} == {Result.DONE}


def test_no_more_run_side_by_side_than_allowed(tools: Tools) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    run(tools, perform, *(step(f"v{n}") for n in range(30)), parallel=2)
    assert most <= 2


def test_a_slow_step_delays_nobody_else(tools: Tools) -> None:
    chained = threading.Event()

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        if action.name == "slow":
            assert chained.wait(PATIENCE), "the others waited for the slow one"
        if action.name == "c":
            chained.set()

    done, _ = run(tools, perform, step("slow"), step("a"), step("b", "a"), step("c", "b"))
    assert {outcome.result for outcome in done.values()} == {Result.DONE}


def test_a_failure_reaches_its_dependents_only(tools: Tools) -> None:
    done, recorder = run(tools, failing("a"), step("a"), step("b", "a"), step("c", "b"), step("x"), step("y", "x"))
    assert {name: outcome.result for name, outcome in done.items()} == {
        "a": Result.FAILED,
        "b": Result.SKIPPED,
        "c": Result.SKIPPED,
        "x": Result.DONE,
        "y": Result.DONE,
    }
    assert done["c"].blocked_by == "disconnect vm/b" and done["b"].attempts == 0
    assert len(recorder.done) == 5


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda: ValueError("a defect"), "unexpected error: ValueError: a defect"),
        (lambda: KeyError("x"), "unexpected error: KeyError: 'x'"),
        (AssertionError, "unexpected error: AssertionError"),
        (lambda: PermissionError(13, "Permission denied", "/some/file"), "Permission denied: /some/file"),
        (lambda: OSError("odd"), "odd"),
    ],
)
def test_what_nobody_expected_is_a_failure_of_its_step(tools: Tools, error: Callable[[], Exception], says: str) -> None:
    done, _ = run(tools, failing("a", error=error), step("a"), step("b", "a"), step("x"))
    assert done["a"].error is not None and done["a"].error.cause == says
    assert isinstance(done["a"].error.__cause__, Exception), "the traceback is kept"
    assert (done["b"].result, done["x"].result) == (Result.SKIPPED, Result.DONE)
    assert tools.journal.last_failures("env") == {"vm/a": says}


def test_a_plan_that_can_never_end_is_refused(tools: Tools) -> None:
    with pytest.raises(BangerError, match="step disconnect vm/b waits for something that is not in its plan"):
        run(tools, nothing, step("a"), step("b", "nobody"))


def test_an_empty_plan_is_done(tools: Tools) -> None:
    assert run(tools, nothing) == ({}, Recorder())


def test_intent_and_entry_are_stored_before_the_effect(tools: Tools) -> None:
    """I3: seen by another connection, so committed."""
    from reconciler.store.db import Database

    seen: list[tuple[int, int, int]] = []

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        other = Database(tools.paths.database, create=False)
        try:
            rows = other.rows("SELECT ended_at FROM intents WHERE step = ?", action.id)
            vms = other.rows("SELECT 1 FROM vms WHERE name = ?", action.name)
            networks = other.rows("SELECT 1 FROM networks WHERE name = ?", action.name)
        finally:
            other.close()
        assert [row["ended_at"] for row in rows] == [None]
        seen.append((len(rows), len(vms), len(networks)))

    create = a.CreateVm(name="dev", reason="test", vm=vm("dev"), address=None)
    bridge = a.EnsureBridge(name="lab", reason="test", network=network())
    run(tools, perform, Step(create), Step(bridge), parallel=1)
    assert seen == [(1, 1, 0), (1, 0, 1)]
    ended = tools.journal._db.rows("SELECT result FROM intents")
    assert [row["result"] for row in ended] == ["done", "done"]


def test_what_cannot_be_recorded_is_not_done(tools: Tools) -> None:
    performed: list[str] = []

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        performed.append(action.name)

    update = a.UpdateVm(name="nobody", reason="test", vm=vm("nobody"), address=None)
    done, _ = run(tools, perform, Step(update), step("x"))
    assert performed == ["x"]
    assert done["record vm/nobody"].result is Result.FAILED
    assert tools.journal._db.rows("SELECT step FROM intents") != []
    assert [row["step"] for row in tools.journal._db.rows("SELECT step FROM intents")] == ["disconnect vm/x"]


def test_an_end_that_cannot_be_recorded_is_a_failure(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(intent: int, outcome: Outcome) -> None:
        raise BangerError("the disk is full")

    monkeypatch.setattr(tools.journal, "end", full, raising=False)
    done, _ = run(tools, failing("a"), step("a"), step("b"))
    assert done["a"].error is not None and done["a"].error.cause == "no", "the first error counts more"
    assert done["b"].result is Result.FAILED


def test_a_retryable_error_is_tried_again_after_a_growing_delay(tools: Tools) -> None:
    left = 2

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        nonlocal left
        if left:
            left -= 1
            raise BangerError("busy", error_class=ErrorClass.RETRYABLE)

    done, recorder = run(tools, perform, step("a"))
    assert (done["a"].result, done["a"].attempts) == (Result.DONE, 3)
    assert recorder.retries == ["disconnect vm/a: busy"] * 2
    first, second = tools.clock.slept  # type: ignore[attr-defined]  # the fake one's
    assert 1.0 <= first <= second
    assert done["a"].seconds == pytest.approx(first + second)


def test_retries_end(tools: Tools) -> None:
    busy = failing("a", error=lambda: BangerError("busy", error_class=ErrorClass.RETRYABLE))
    done, _ = run(tools, busy, step("a"), step("b", "a"))
    assert (done["a"].result, done["a"].attempts) == (Result.FAILED, 4)
    assert done["b"].result is Result.SKIPPED


@pytest.mark.parametrize("kind", [ErrorClass.TERMINAL, ErrorClass.CANCELLED])
def test_other_errors_are_not_tried_again(tools: Tools, kind: ErrorClass) -> None:
    done, recorder = run(tools, failing("a", error=lambda: BangerError("no", error_class=kind)), step("a"))
    assert done["a"].attempts == 1 and recorder.retries == []


def test_a_cancelled_process_starts_nothing_more_and_retries_nothing(tools: Tools) -> None:
    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        performed.append(action.name)
        cancel.cancel()
        raise BangerError("busy", error_class=ErrorClass.RETRYABLE)

    performed: list[str] = []
    done, recorder = run(tools, perform, step("a"), step("queued"), step("later", "queued"), parallel=1)
    assert performed == ["a"]
    assert done["a"].attempts == 1 and recorder.retries == []
    assert (done["queued"].result, done["later"].result) == (Result.CANCELLED, Result.SKIPPED)
    assert recorder.order == ["+disconnect vm/a", "-disconnect vm/a", "-disconnect vm/queued", "-disconnect vm/later"]


def test_a_cancellation_while_waiting_for_a_retry_ends_the_step(tools: Tools) -> None:
    calls: list[str] = []

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        calls.append(action.name)
        raise BangerError("busy", error_class=ErrorClass.RETRYABLE)

    tools.clock.on_sleep = lambda seconds: cancel.cancel()  # type: ignore[attr-defined]  # the fake one's
    done, _ = run(tools, perform, step("a"), step("b", "a"))
    assert calls == ["a"]
    assert (done["a"].result, done["b"].result) == (Result.CANCELLED, Result.SKIPPED)


def test_ctrl_c_lets_workers_come_to_rest_and_records_their_end(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.execute import executor

    working, real = threading.Event(), executor.wait
    calls = 0

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        working.set()
        cancel._event.wait(PATIENCE)
        raise CancelledError

    def interrupted(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            assert working.wait(PATIENCE)
            raise KeyboardInterrupt
        return real(*args, **named)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(executor, "wait", interrupted)
    with pytest.raises(CancelledError):
        run(tools, perform, step("a"), step("queued"), step("b", "a"), parallel=1)
    rows = tools.journal._db.rows("SELECT step, result FROM intents")
    assert [(row["step"], row["result"]) for row in rows] == [("disconnect vm/a", "cancelled")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("step")]


def test_the_tables_cover_every_action() -> None:
    every = set(a.Action.__args__)
    assert set(dispatch.PERFORM) | dispatch.RECORD_ONLY == every
    assert not set(dispatch.PERFORM) & dispatch.RECORD_ONLY
    assert set(dispatch.RECORD) <= every and set(dispatch.RECORD) >= dispatch.RECORD_ONLY


def test_many_that_wait_for_a_guest_delay_nobody_else(tools: Tools) -> None:
    """I7: more waits than there are workers."""
    done = threading.Event()

    def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
        if isinstance(action, a.AwaitReady):
            assert done.wait(PATIENCE), "the others waited for a guest"
        elif action.name == "last":
            done.set()

    waits = [Step(a.AwaitReady(name=f"v{n}", reason="test", timeout=1.0)) for n in range(4)]
    ended, _ = run(tools, perform, *waits, step("first"), step("last", "first"), parallel=1)
    assert {outcome.result for outcome in ended.values()} == {Result.DONE}
