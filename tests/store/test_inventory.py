"""The inventory and the journal: what is written is what is read, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from reconciler.lib.errors import BangerError
from reconciler.model.actions import Action, StartVm, StopVm
from reconciler.model.events import Event
from reconciler.model.outcome import Outcome, Result
from reconciler.store.db import Database
from reconciler.store.events import EventLog
from reconciler.store.inventory import EnvironmentRow, Inventory, VmRow
from reconciler.store.journal import _REASONS, Journal
from tests.fakes.clock import FakeClock
from tests.fakes.host import desired, network, vm


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "banger.db", create=True)
    yield made
    made.close()


@pytest.fixture
def inventory(database: Database) -> Inventory:
    return Inventory(database)


def row(name: str = "dev", environment: str = "env", **fields: object) -> VmRow:
    made = VmRow(
        environment=environment,
        name=name,
        id=f"{environment}-{name}",
        spec=vm(name, volumes=["data"]),
        created={"image": "base (0123456789abcdef)"},
        booted={"cpus": "1"},
        address=IPv4Address("172.30.7.2"),
        forwards={"22": 40_000},
        created_at=1.5,
        started_at=2.5,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]  # the fields of a row


def test_what_is_put_is_what_is_read(inventory: Inventory) -> None:
    first, second = (
        row(halted="by hand", condemned="0" * 12),
        row("web", address=None, started_at=None, forwards={}, booted={}, ready_at=None),
    )
    inventory.put_vm(first)
    inventory.put_vm(second)
    inventory.put_vm(row("dev", "other"))
    assert inventory.vms("env") == [first, second]
    assert [(r.environment, r.name) for r in inventory.vms()] == [("env", "dev"), ("env", "web"), ("other", "dev")]
    assert inventory.vm("env", "dev") == first and inventory.vm("env", "nobody") is None
    inventory.put_vm(dataclasses.replace(first, address=None))
    assert inventory.vm("env", "dev") == dataclasses.replace(first, address=None)
    inventory.drop_vm("env", "dev")
    inventory.drop_vm("env", "dev")
    assert inventory.vms("env") == [second]


def test_an_environment_keeps_its_file(inventory: Inventory) -> None:
    wanted = desired(vm("dev", network="lab"), networks=[network()])
    made = EnvironmentRow(name="env", source="/banger.yaml", digest="0" * 64, desired=wanted, applied_at=1.0)
    inventory.put_environment(made)
    assert inventory.environment("env") == made and inventory.environment("other") is None
    inventory.drop_environment("env")
    assert inventory.environment("env") is None


def test_a_generation_grows_with_what_is_asked_for_and_with_nothing_else(inventory: Inventory) -> None:
    made = EnvironmentRow(name="env", source="/a", digest="0" * 64, desired=desired(vm("dev")), applied_at=1.0)

    def generation(**fields: object) -> int:
        inventory.put_environment(dataclasses.replace(made, **fields))  # type: ignore[arg-type]  # the fields of a row
        found = inventory.environment("env")
        assert found is not None
        return found.generation

    assert generation() == 1
    assert generation(source="/b", digest="1" * 64, applied_at=2.0, generation=9) == 1
    assert generation(desired=desired(vm("dev", cpus=2))) == 2
    assert generation() == 3
    inventory.drop_environment("env")
    assert generation() == 1


def test_what_an_older_banger_stored_is_the_same_generation(database: Database, inventory: Inventory) -> None:
    wanted = desired(vm("dev"))
    inventory.put_environment(EnvironmentRow(name="env", source="", digest="", desired=wanted, applied_at=1.0))
    text = json.loads(database.rows("SELECT desired FROM environments")[0]["desired"])
    del text["controller"], text["vms"]["dev"]["restart"]
    database.execute("UPDATE environments SET desired = ?", json.dumps(text))
    inventory.put_environment(EnvironmentRow(name="env", source="", digest="", desired=wanted, applied_at=2.0))
    database.execute("UPDATE environments SET desired = '{'")
    assert database.rows("SELECT generation FROM environments")[0]["generation"] == 1
    inventory.put_environment(EnvironmentRow(name="env", source="", digest="", desired=wanted, applied_at=3.0))
    assert database.rows("SELECT generation FROM environments")[0]["generation"] == 2


def test_a_name_is_known_while_anything_is_recorded_under_it(inventory: Inventory) -> None:
    inventory.put_network("b", network())
    inventory.put_vm(row(environment="a"))
    assert inventory.environment_names() == ["a", "b"]
    assert inventory.networks("b") == {"lab": network()} and inventory.networks("a") == {}
    inventory.drop_network("b", "lab")
    assert inventory.environment_names() == ["a"]


def test_a_damaged_entry_of_one_environment_does_not_hide_another(database: Database, inventory: Inventory) -> None:
    good = EnvironmentRow(name="good", source="", digest="", desired=desired(name="good"), applied_at=1.0)
    inventory.put_environment(good)
    database.execute("INSERT INTO environments VALUES ('bad', '', '', '{\"surprise\": 1}', 0.0, 1)")
    assert inventory.environment("good") == good
    with pytest.raises(BangerError, match="environment bad cannot be read: DesiredState: unknown field 'surprise'"):
        inventory.environment("bad")


def test_ready_is_noted_once_for_one_boot(inventory: Inventory) -> None:
    inventory.put_vm(row())
    inventory.mark_ready("env", "dev", "another-id", 2.5, 9.0)
    inventory.mark_ready("env", "dev", "env-dev", 1.0, 9.0)
    assert inventory.vms()[0].ready_at is None
    inventory.mark_ready("env", "dev", "env-dev", 2.5, 9.0)
    inventory.mark_ready("env", "dev", "env-dev", 2.5, 10.0)
    assert inventory.vms()[0].ready_at == 9.0


def test_ports_of_all_environments_are_taken(inventory: Inventory) -> None:
    inventory.put_vm(row(forwards={"22": 1, "80": 2}))
    inventory.put_vm(row("dev", "other", forwards={"22": 3}))
    assert inventory.taken_ports() == {1, 2, 3}


def test_the_newest_ended_step_of_an_object_counts(database: Database) -> None:
    journal = Journal(database, FakeClock(), "op")
    start = StartVm(name="dev", reason="test", vm=vm("dev"), network=None, address=None)
    stop = StopVm(name="dev", reason="test")

    def ended(action: StartVm | StopVm, result: Result) -> None:
        with journal.intend("env", action) as intent:
            pass
        error = BangerError("no kernel") if result is Result.FAILED else None
        journal.end(intent, Outcome(step=action.id, object=action.object, result=result, error=error))

    assert journal.last_failures("env") == {}
    ended(start, Result.FAILED)
    assert journal.last_failures("env") == {"vm/dev": "no kernel"}
    assert journal.last_failures("other") == {}
    with journal.intend("env", start):
        pass  # killed here: it has no end
    assert journal.last_failures("env") == {"vm/dev": "no kernel"}
    ended(stop, Result.DONE)
    assert journal.last_failures("env") == {}


def test_every_end_is_an_event(database: Database) -> None:
    journal, log = Journal(database, FakeClock(5.0), "op"), EventLog(database, FakeClock())
    start = StartVm(name="dev", reason="test", vm=vm("dev"), network=None, address=None)

    def ended(result: Result, error: BangerError | None = None) -> Event:
        with journal.intend("env", start) as intent:
            pass
        journal.end(intent, Outcome(step=start.id, object=start.object, result=result, error=error))
        return log.newest_of(None, 1)[0]

    done = ended(Result.DONE)
    assert (done.reason, done.message, done.warning) == ("Started", start.describe(), False)
    assert (done.environment, done.object, done.operation, done.at) == ("env", "vm/dev", "op", 5.0)
    failed = ended(Result.FAILED, BangerError("no kernel"))
    assert (failed.reason, failed.message) == ("Failed", f"{start.describe()}: no kernel") and failed.warning
    cancelled = ended(Result.CANCELLED)
    assert (cancelled.reason, cancelled.warning) == ("Cancelled", False)


@pytest.mark.parametrize("kind", Action.__args__)
def test_every_kind_of_action_has_its_word(kind: type) -> None:
    assert _REASONS[kind.__name__].isalpha() and _REASONS[kind.__name__][0].isupper()


def test_the_end_and_its_event_are_one_transaction(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(database, FakeClock(), "op")
    stop = StopVm(name="dev", reason="test")
    with journal.intend("env", stop) as intent:
        pass
    monkeypatch.setattr(Database, "prune_intents", lambda self: self.execute("nonsense"))
    with pytest.raises(BangerError):
        journal.end(intent, Outcome(step=stop.id, object=stop.object, result=Result.DONE))
    assert database.rows("SELECT 1 FROM events") == []
    assert database.rows("SELECT result FROM intents")[0]["result"] is None


def test_an_intent_and_its_entry_are_one_transaction(database: Database, inventory: Inventory) -> None:
    journal = Journal(database, FakeClock(), "op")
    with pytest.raises(RuntimeError), journal.intend("env", StopVm(name="dev", reason="test")):
        inventory.put_vm(row())
        raise RuntimeError
    assert inventory.vms() == [] and database.rows("SELECT * FROM intents") == []
