"""A file of the first schema: readable as it is, and brought forward by the first writer with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.model.codec import to_json
from reconciler.store import db as module
from reconciler.store.control import ControlState, Pauses
from reconciler.store.db import Database
from reconciler.store.events import EventLog
from reconciler.store.inventory import EnvironmentRow, Inventory
from tests.fakes.clock import FakeClock
from tests.fakes.host import desired, vm

OLD_VM_FIELDS = ("restart", "depends_on", "on_change", "ttl")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What banger 0.1 wrote."""
    path = tmp_path / "banger.db"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MIGRATIONS", module._MIGRATIONS[:1])
        database = Database(path, create=True)
    wanted = to_json(desired(vm("dev")))
    del wanted["controller"]
    for field in OLD_VM_FIELDS:
        del wanted["vms"]["dev"][field]
    for made in (*wanted["images"].values(), *wanted["kernels"].values()):
        # Debian was the only source.
        source = made.pop("source")
        made |= {key: source[key] for key in ("suite", "packages", "package") if key in source}
    database.execute("INSERT INTO environments VALUES ('env', '/f', 'd', ?, 1.0)", json.dumps(wanted))
    database.execute(
        "INSERT INTO vms VALUES ('env', 'dev', 'id', ?, '{}', '{\"cpus\": \"1\"}', NULL, '{}', 1.0, 2.0, 3.0)",
        json.dumps(wanted["vms"]["dev"]),
    )
    database.close()
    return path


def check(database: Database) -> None:
    inventory = Inventory(database)
    assert inventory.environment("env") == EnvironmentRow(
        name="env", source="/f", digest="d", desired=desired(vm("dev")), applied_at=1.0, generation=1
    )
    (row,) = inventory.vms()
    assert (row.spec, row.started_at, row.ready_at) == (vm("dev"), 2.0, 3.0)
    assert (row.halted, row.condemned) == (None, None)


def test_a_reader_takes_it_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    database = Database(old, create=False)
    assert database.version == 1 and not database.current
    check(database)
    control, log = ControlState(database), EventLog(database, FakeClock())
    assert control.paused("env") == Pauses() and control.approved("env") == frozenset()
    assert control.sources() == [] and control.transitions("env") == {}
    assert log.read() == [] and log.newest() == 0 and log.newest_of("env", 5) == []
    database.close()
    assert old.read_bytes() == before


def test_a_writer_brings_it_forward(old: Path) -> None:
    database = Database(old, create=True)
    assert database.current
    check(database)
    inventory = Inventory(database)
    inventory.put_environment(
        EnvironmentRow(name="env", source="/f", digest="d", desired=desired(vm("dev")), applied_at=9.0)
    )
    found = inventory.environment("env")
    assert found is not None and found.generation == 1, "the same file is no new generation"
    ControlState(database).pause("env", None, 1.0)
    assert ControlState(database).paused("env").environment
    assert EventLog(database, FakeClock()).append("env", "vm/dev", "Started", "start vm dev").id == 1
    database.close()
