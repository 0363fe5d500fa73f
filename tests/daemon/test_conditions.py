"""Conditions: what a reader is told about an object, and that only their transitions are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.control.reconciler import Trouble
from reconciler.daemon import conditions
from reconciler.daemon.engine import Engine
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.actions import StopVm
from reconciler.model.plan import Held, Plan, Step
from reconciler.model.status import ConditionType
from reconciler.store.control import ControlState, Pauses
from tests.fakes.clock import FakeClock
from tests.fakes.service import vm_status

NONE = Pauses()


def told(plan: Plan | None, *troubles: Trouble, pauses: Pauses = NONE) -> dict[str, list[tuple[str, str, str]]]:
    found = conditions.of_environment(plan, {trouble.object: trouble for trouble in troubles}, pauses)
    return {name: [(c.type.value, c.reason, c.message) for c in these] for name, these in found.items()}


def test_what_is_done_failed_and_waits_is_said() -> None:
    failed = BangerError("no space left")
    assert told(None, Trouble(object="vm/a", in_flight="start", since=1.0)) == {
        "vm/a": [("Progressing", "InFlight", "start is under way")]
    }
    assert told(None, Trouble(object="vm/a", attempts=3, retry_in=7.6, error=failed)) == {
        "vm/a": [
            ("Progressing", "WaitingToRetry", "next try in 8s, after 3 attempts"),
            ("Degraded", "Failed", "no space left"),
        ]
    }
    ((kind, reason, message),) = told(None, Trouble(object="network/lab", contended=True, retry_in=600.0))[
        "network/lab"
    ]
    assert (kind, reason) == ("Contended", "UndoneAgain") and "banger resume" in message


def test_what_is_held_says_what_releases_it_and_what_is_planned_says_why() -> None:
    stop = StopVm(name="b", reason="vms.b.state is stopped")
    plan = Plan(
        environment="demo",
        steps=(Step(stop),),
        held=(Held(object="vm/c", reason="too many", release="banger approve 0123456789ab"),),
    )
    assert told(plan, pauses=Pauses(environment=True, vms=frozenset({"b"}))) == {
        "vm/b": [
            ("Progressing", "Planned", "to do: stop vm b (vms.b.state is stopped)"),
            ("Held", "Paused", "paused; `banger resume b`"),
        ],
        "vm/c": [("Held", "NeedsDecision", "too many; banger approve 0123456789ab")],
        "environment/demo": [("Held", "Paused", "paused; `banger resume`")],
    }


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlState]:
    engine = Engine(Paths.discover({"BANGER_HOME": str(tmp_path)}), FakeClock())
    with engine.writing(lambda message: None):
        yield ControlState(engine.database)
    engine.close()


def held(*names: str) -> conditions.Extra:
    plan = Plan(environment="demo", held=tuple(Held(object=name, reason="r", release="s") for name in names))
    return conditions.of_environment(plan, {}, NONE)


def test_a_transition_is_told_and_written_once(control: ControlState) -> None:
    assert [name for name, _ in conditions.remember(control, "demo", held("vm/a"), 10.0)] == ["vm/a"]
    assert conditions.remember(control, "demo", held("vm/a"), 20.0) == []
    before = control.transitions("demo")
    assert before == {("vm/a", "Held"): ("True/NeedsDecision", 10.0)}
    conditions.remember(control, "demo", held("vm/b"), 30.0)
    assert control.transitions("demo") == {
        ("vm/a", "Held"): ("False/", 30.0),
        ("vm/b", "Held"): ("True/NeedsDecision", 30.0),
    }
    assert [name for name, _ in conditions.remember(control, "demo", held("vm/a", "vm/b"), 40.0)] == ["vm/a"]


def test_progress_is_told_and_not_written(control: ControlState) -> None:
    """I5: a row for each step that begins and ends would be a write for each."""
    busy = conditions.of_environment(None, {"vm/a": Trouble(object="vm/a", in_flight="start")}, NONE)
    assert conditions.remember(control, "demo", busy, 10.0) == []
    assert control.transitions("demo") == {}


def test_a_status_says_since_when(control: ControlState) -> None:
    extra = held("vm/dev")
    conditions.remember(control, "demo", extra, 10.0)
    shown = conditions.told(vm_status(), extra, control.transitions("demo"))
    condition = next(c for c in shown.conditions if c.type is ConditionType.HELD)
    assert condition.since == 10.0
    assert condition.to_json()["lastTransition"] == "1970-01-01T00:00:10Z"
    assert shown.message == "r; s"


def test_a_full_cache_is_a_condition_of_its_own() -> None:
    full = Held(object="cache/cache", reason="it is full", release="make room", advisory=True)
    assert told(Plan(environment="demo", held=(full,))) == {
        "cache/cache": [("CachePressure", "Full", "it is full; make room")]
    }
