"""A VMM is started once, in a scope if there can be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.drivers.vmm import scope
from reconciler.lib.run import CommandError

PASSING = 'echo scope >>"$LOG"; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
REFUSING = 'echo scope >>"$LOG"; echo "Failed to start transient scope unit" >&2; exit 1'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ran, in its order; and a host that systemd has booted."""
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(scope, "_NEEDED", scope._NEEDED | {"LOG"})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(scope, "_BOOTED", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path / "log"


def systemd_run(folder: Path, script: str) -> None:
    program = folder / "systemd-run"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def launch(folder: Path, script: str = 'echo vmm >>"$LOG"') -> None:
    scope.launch(["sh", "-c", script], install="0a1b", vm_id="vm-7_x", folder=folder, timeout=10, pass_fds=())


def test_in_its_scope(log: Path, tmp_path: Path) -> None:
    systemd_run(tmp_path, PASSING)
    launch(tmp_path)
    assert log.read_text().split() == ["scope", "vmm"]
    assert not (tmp_path / "scoped").exists()


def test_without_when_systemd_refuses(log: Path, tmp_path: Path) -> None:
    systemd_run(tmp_path, REFUSING)
    # As a launch that was killed would leave it.
    (tmp_path / "scoped").touch()
    launch(tmp_path)
    assert log.read_text().split() == ["scope", "vmm"]


@pytest.mark.parametrize("script", [PASSING, REFUSING])
def test_a_failing_vmm_is_started_once_and_says_why(script: str, log: Path, tmp_path: Path) -> None:
    systemd_run(tmp_path, script)
    with pytest.raises(CommandError) as caught:
        launch(tmp_path, 'echo vmm >>"$LOG"; echo "no such disk" >&2; exit 3')
    assert (caught.value.returncode, caught.value.output) == (3, "no such disk\n")
    assert log.read_text().split() == ["scope", "vmm"]


def test_roots_scope_has_the_name_of_the_vm(log: Path, tmp_path: Path) -> None:
    systemd_run(tmp_path, PASSING)
    words = scope.prefix("0a1b", "vm-7_x")
    assert {"--system", "--scope", "--collect", "--unit=banger-vm-0a1b-vm-7_x.scope"} <= set(words)
    assert words[-1] == "--"


def test_a_user_needs_a_manager(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd_run(tmp_path, PASSING)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert scope.prefix("i", "v") == []
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert scope.prefix("i", "v") == []
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/private").touch()
    assert "--user" in scope.prefix("i", "v")


def test_without_systemd_there_is_no_scope(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd_run(tmp_path, PASSING)
    monkeypatch.setattr(scope, "_BOOTED", tmp_path / "nowhere")
    launch(tmp_path)
    assert log.read_text().split() == ["vmm"]


def test_a_vmm_knows_nothing_of_the_surroundings_of_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_TOKEN", "secret")
    launch(tmp_path, f"env >{tmp_path}/said")
    said = (tmp_path / "said").read_text()
    assert "PATH=" in said and "CI_TOKEN" not in said
