"""What people decided and what a controller saw: kept for as long as its environment, and written only when it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.store.control import ControlState, Pauses, SourceRow
from reconciler.store.db import Database
from reconciler.store.events import EventLog
from reconciler.store.inventory import EnvironmentRow, Inventory
from tests.fakes.clock import FakeClock
from tests.fakes.host import desired


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "banger.db", create=True)
    yield made
    made.close()


@pytest.fixture
def control(database: Database) -> ControlState:
    return ControlState(database)


def test_an_environment_and_its_vms_are_paused_apart(control: ControlState) -> None:
    assert control.paused("env") == Pauses()
    control.pause("env", "dev", 1.0)
    control.pause("env", "dev", 2.0)
    control.pause("env", None, 1.0)
    control.pause("other", "web", 1.0)
    assert control.paused("env") == Pauses(environment=True, vms=frozenset({"dev"}))
    assert control.resume("env", None) and not control.resume("env", None)
    assert control.paused("env") == Pauses(vms=frozenset({"dev"}))
    assert control.resume("env", "dev") and not control.resume("env", "web")
    assert control.paused("env") == Pauses() and control.paused("other").vms == {"web"}


def test_an_approval_lasts_until_it_was_used(control: ControlState) -> None:
    for digest in ("a", "b", "a"):
        control.approve("env", digest, 1.0)
    control.approve("other", "c", 1.0)
    assert control.approved("env") == {"a", "b"}
    control.forget_approvals("env")
    assert control.approved("env") == frozenset() and control.approved("other") == {"c"}


def test_a_file_is_known_with_what_is_wrong_with_it(control: ControlState) -> None:
    good = SourceRow(path="/b.yaml", environment="env", problem=None, since=1.0)
    bad = SourceRow(path="/a.yaml", environment=None, problem="/a.yaml:1:1: no", since=2.0)
    control.put_source(good)
    control.put_source(bad)
    assert control.sources() == [bad, good]
    control.put_source(dataclasses.replace(bad, problem=None, environment="other", since=3.0))
    assert [row.problem for row in control.sources()] == [None, None]
    control.drop_source("/b.yaml")
    control.drop_source("/b.yaml")
    assert [row.path for row in control.sources()] == ["/a.yaml"]


def test_a_transition_is_dated_when_the_status_changes(control: ControlState, database: Database) -> None:
    """I5."""
    control.transition("env", "vm/dev", "Ready", "True", 1.0)
    before = database.rows("PRAGMA data_version")[0][0], database._connection.total_changes
    control.transition("env", "vm/dev", "Ready", "True", 2.0)
    assert (database.rows("PRAGMA data_version")[0][0], database._connection.total_changes) == before
    control.transition("env", "vm/dev", "Held", "True", 3.0)
    control.transition("other", "vm/dev", "Ready", "False", 3.0)
    assert control.transitions("env") == {("vm/dev", "Ready"): ("True", 1.0), ("vm/dev", "Held"): ("True", 3.0)}
    control.transition("env", "vm/dev", "Ready", "False", 4.0)
    assert control.transitions("env")["vm/dev", "Ready"] == ("False", 4.0)


def test_an_environment_takes_all_of_it_along_but_its_events(database: Database, control: ControlState) -> None:
    inventory, log = Inventory(database), EventLog(database, FakeClock())
    for name in ("env", "other"):
        inventory.put_environment(
            EnvironmentRow(name=name, source="", digest="", desired=desired(name=name), applied_at=1.0)
        )
        control.pause(name, "dev", 1.0)
        control.approve(name, "a", 1.0)
        control.put_source(SourceRow(path=f"/{name}.yaml", environment=name, problem=None, since=1.0))
        control.transition(name, "vm/dev", "Ready", "True", 1.0)
        log.append(name, "vm/dev", "Started", "start vm dev")
    inventory.drop_environment("env")
    assert control.paused("env") == Pauses() and control.approved("env") == frozenset()
    assert [row.environment for row in control.sources()] == ["other"] and control.transitions("env") == {}
    assert control.paused("other").vms == {"dev"} and control.approved("other") and control.transitions("other")
    assert len(log.read(environment="env")) == 1
