"""The trash (I12): killed anywhere and repeated, every byte is in exactly one place, and the way back works."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from reconciler.drivers.cache.trash import entries
from reconciler.execute import trash, vms
from reconciler.execute.dispatch import perform, record
from reconciler.execute.tools import Tools
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.progress import Silent
from reconciler.model.actions import Action, CreateVm, RestoreVm, TrashVm, TrashVolumes
from reconciler.model.changes import creation_facts
from reconciler.store.inventory import VmRow
from tests.execute.conftest import open_tools
from tests.fakes.host import vm
from tests.fakes.killing import run_killed_at

DEV = vm("dev", volumes=["data"])
TRASH = TrashVm(name="dev", reason="test", with_volumes=True)
MOST_CHANGES = 80


def make_vm(tools: Tools, content: str = "disk") -> None:
    """A VM as `CreateVm` and a start leave it, with text for disks."""
    if tools.inventory.vm("env", "dev") is None:
        row = VmRow(
            environment="env",
            name="dev",
            id="0123456789ab",
            spec=DEV,
            created=creation_facts(DEV),
            booted={},
            address=IPv4Address("172.30.7.2"),
            forwards={},
            created_at=1.0,
            started_at=None,
        )
        tools.inventory.put_vm(row)
    place = tools.paths.vm("env", "dev")
    place.root.mkdir(parents=True)
    place.overlay.write_text(content)
    volume = tools.paths.volume("env", "dev", "data")
    volume.parent.mkdir(parents=True, exist_ok=True)
    volume.write_text("data")


def do(action: Action, tools: Tools) -> None:
    """One step as the executor does it."""
    with tools.journal.intend("env", action):
        record(action, tools)
    perform(action, tools, Silent())


def contents(home: Path) -> list[str]:
    """The text of every disk below the state directory, wherever it is."""
    return sorted(path.read_text() for path in (home / "state").rglob("*.ext4"))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    with open_tools(tmp_path / "template") as tools:
        make_vm(tools)
    return tmp_path / "template"


@pytest.fixture
def trashed(template: Path) -> Path:
    with open_tools(template) as tools:
        do(TRASH, tools)
    return template


def each_kill(template: Path, action: Action) -> list[Path]:
    """Copies of a state directory on which `action` was killed at each of its changes; the last one is whole."""
    made = []
    for number in range(MOST_CHANGES):
        home = template.parent / f"killed-{number}"
        shutil.copytree(template, home)

        def work(home: Path = home) -> None:
            with open_tools(home) as tools:
                do(action, tools)

        made.append(home)
        if not run_killed_at(number, work):
            return made
    raise AssertionError("there are more changes than were tried")


def test_a_trashing_that_was_killed_is_finished_by_the_next(template: Path) -> None:
    homes = each_kill(template, TRASH)
    assert len(homes) > 8
    for home in homes:
        assert contents(home) == ["data", "disk"], "lost at once"
        with open_tools(home) as tools:
            do(TRASH, tools)
            assert tools.inventory.vms() == []
            ((name, manifest),) = entries(tools.paths)
            assert (manifest.vm, manifest.address) == (DEV, IPv4Address("172.30.7.2"))
            entry = tools.paths.trash_entry(name)
            assert (entry / "vm" / "overlay.ext4").read_text() == "disk"
            assert (entry / "volumes" / "data.ext4").read_text() == "data"
            assert contents(home) == ["data", "disk"]


def test_a_restoration_that_was_killed_is_finished_by_the_next(trashed: Path) -> None:
    action = RestoreVm(name="dev", reason="test", entry="env.dev.0123456789ab")
    homes = each_kill(trashed, action)
    assert len(homes) > 8
    for home in homes:
        assert contents(home) == ["data", "disk"], "lost at once"
        with open_tools(home) as tools:
            if entries(tools.paths):
                do(action, tools)
            assert [row.spec for row in tools.inventory.vms()] == [DEV]
            assert tools.paths.vm("env", "dev").overlay.read_text() == "disk"
            assert tools.paths.volume("env", "dev", "data").read_text() == "data"
            assert entries(tools.paths) == [] and not list(tools.paths.trash.glob("env.*"))


def test_a_vm_that_is_made_after_a_killed_trashing_is_another_one(template: Path) -> None:
    """Else the two would meet under one name in the trash, and the second could never go there."""
    recreate = TrashVm(name="dev", reason="test", recreate=True)
    for home in each_kill(template, recreate):
        with open_tools(home) as tools:
            if tools.paths.vm("env", "dev").root.exists():
                continue  # nothing was moved, so the VM is still itself
            create = CreateVm(name="dev", reason="test", vm=DEV, address=None)
            with tools.journal.intend("env", create):
                vms.record_creation(create, tools)
            make_vm(tools, "second disk")
            do(recreate, tools)
            assert len(entries(tools.paths)) == 2
            assert contents(home) == ["data", "disk", "second disk"]


def test_a_half_made_vm_keeps_its_id(tools: Tools) -> None:
    create = CreateVm(name="dev", reason="test", vm=DEV, address=None)
    ids = set()
    for _ in range(2):
        with tools.journal.intend("env", create):
            record(create, tools)
        ids.add(vms.row_of("dev", tools).id)
    assert len(ids) == 1


def test_trashing_twice_is_trashing_once(tools: Tools) -> None:
    make_vm(tools)
    do(TRASH, tools)
    do(TRASH, tools)
    assert len(entries(tools.paths)) == 1


def test_volumes_stay_when_their_vm_goes(tools: Tools) -> None:
    make_vm(tools)
    do(TrashVm(name="dev", reason="test"), tools)
    assert tools.paths.volume("env", "dev", "data").read_text() == "data"
    do(TrashVolumes(name="dev", reason="test"), tools)
    do(TrashVolumes(name="dev", reason="test"), tools)
    assert not tools.paths.volume("env", "dev", "data").exists()
    assert sorted(manifest.vm is None for _, manifest in entries(tools.paths)) == [False, True]


def test_volumes_alone_are_no_vm_to_restore(tools: Tools) -> None:
    make_vm(tools)
    do(TrashVolumes(name="dev", reason="test"), tools)
    ((name, _),) = entries(tools.paths)
    with pytest.raises(UsageError, match="holds volumes only"):
        do(RestoreVm(name="dev", reason="test", entry=name), tools)


def test_a_refused_restoration_records_nothing(tools: Tools) -> None:
    make_vm(tools)
    do(TRASH, tools)
    tools.paths.volume("env", "dev", "data").parent.mkdir(parents=True)
    with pytest.raises(BangerError, match="the trash entry holds others"):
        do(RestoreVm(name="dev", reason="test", entry="env.dev.0123456789ab"), tools)
    assert tools.inventory.vms() == []
    assert len(entries(tools.paths)) == 1


def test_an_entry_that_cannot_be_read_is_left_alone(tools: Tools) -> None:
    for name, text in (("env.a.1", "{"), ("env.b.2", "[]"), ("env.c.3", '{"environment": 1}')):
        folder = tools.paths.trash_entry(name)
        folder.mkdir(parents=True)
        (folder / "entry.json").write_text(text)
    tools.paths.trash_entry("env.d.4").mkdir()
    assert entries(tools.paths) == []
    with pytest.raises(UsageError, match="there is no trash entry"):
        trash.read_entry("env.a.1", tools.paths)
