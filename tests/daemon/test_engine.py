"""One state directory: who creates it, who may write to it, and what is left by somebody who was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.daemon.engine import Engine
from reconciler.lib.atomic import exclusive
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from tests.fakes.clock import FakeClock
from tests.fakes.host import Host, desired, vm


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path / "home")})


def engine(paths: Paths) -> Engine:
    return Engine(paths, FakeClock())


def test_only_a_writer_creates_it(paths: Paths) -> None:
    reader = engine(paths)
    assert not reader.exists and not paths.state.exists()
    with pytest.raises(BangerError, match="cannot open the state"):
        reader.inventory()
    with reader.writing(lambda message: None):
        assert reader.exists
    assert paths.state.stat().st_mode & 0o077 == 0
    reader.close()


def test_a_file_whose_maker_was_killed_is_no_state_yet(paths: Paths) -> None:
    paths.state.mkdir(parents=True)
    paths.database.touch()
    made = engine(paths)
    assert not made.exists and made.observe("env").vms == {}
    with made.writing(lambda message: None):
        assert made.exists and len(made.inventory().install) == 12
    made.close()


def test_a_second_writer_waits_and_says_so(paths: Paths) -> None:
    """The first one is another process, which lets go when it is told to."""
    paths.state.mkdir(parents=True)
    go, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(paths.writer_lock):
            os.write(told[1], b"!")
            os.read(go[0], 1)
        os._exit(0)
    os.read(told[0], 1)
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        os.write(go[1], b"!")

    made = engine(paths)
    with made.writing(note):
        assert made.exists
    made.close()
    os.waitpid(child, 0)
    assert notes == [f"another banger is changing {paths.state}; waiting for it to finish"]


def test_the_lock_of_a_killed_writer_blocks_nobody(paths: Paths) -> None:
    """I8."""
    paths.state.mkdir(parents=True)
    told = os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(paths.writer_lock):
            os.write(told[1], b"!")
            os.kill(os.getpid(), 9)
    os.read(told[0], 1)
    os.waitpid(child, 0)
    notes: list[str] = []
    made = engine(paths)
    with made.writing(notes.append):
        assert paths.writer_lock.exists()
    made.close()
    assert notes == []


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    made = engine(Paths.discover({"BANGER_HOME": str(tmp_path / "home")}))
    with pytest.raises(BangerError, match="cannot create") as caught, made.writing(lambda message: None):
        pass
    assert caught.value.hint == "set BANGER_HOME to a folder of yours"


def test_two_state_directories_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: a VMM with another installation's stamp is not ours, not even a stray."""
    host = Host(tmp_path / "one", monkeypatch)
    host.apply(desired(vm("dev")))
    host.backend.add("ba9876543210", "foreign")
    assert host.plan(desired(vm("dev"))).empty
    install = Engine(host.paths, host.clock).inventory().install
    host.backend.add(install, "stray")
    (step,) = host.plan(desired(vm("dev"))).steps
    assert step.id == "kill vm/stray"
    host.service.close()
