"""`banger system`, below a folder: what is said, and what is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.main import cli


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["system", *words], prog_name="banger", catch_exceptions=False)


@pytest.fixture(autouse=True)
def a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test of this file reaches the home or the systemd of whoever runs it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return home


def test_installed_once_listed_before_and_removed(tmp_path: Path) -> None:
    prefix = str(tmp_path / "root")
    listed = run("install", "--prefix", prefix, "--dry-run")
    assert (listed.exit_code, (tmp_path / "root").exists()) == (0, False)
    done = run("install", "--prefix", prefix)
    assert done.exit_code == 0
    assert done.stderr == listed.stderr != ""
    assert run("install", "--prefix", prefix).stderr == "nothing to do: banger is installed and up to date\n"
    assert run("uninstall", "--prefix", prefix).exit_code == 0
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert run("uninstall", "--prefix", prefix).stderr == "nothing to do: banger is not installed\n"


def test_quiet(tmp_path: Path) -> None:
    done = run("install", "--prefix", str(tmp_path / "root"), "--quiet")
    assert (done.exit_code, done.output) == (0, "")


def test_a_user_without_a_manager(a_home: Path) -> None:
    done = run("install", "--user")
    assert done.exit_code == 0
    assert "run " not in done.stderr and "next:" not in done.stderr
    assert (a_home / ".config/systemd/user/banger-controller.service").is_file()
    assert run("uninstall", "--user").exit_code == 0
    assert not [path for path in a_home.rglob("*") if path.is_file()]


def test_a_user_has_no_prefix(tmp_path: Path) -> None:
    done = run("install", "--user", "--prefix", str(tmp_path))
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    unit = tmp_path / "root/etc/systemd/system/banger-helper.socket"
    unit.parent.mkdir(parents=True)
    unit.write_text("mine")
    done = run("install", "--prefix", str(tmp_path / "root"))
    assert done.exit_code == 1
    assert str(unit) in done.stderr and "systemctl edit" in done.stderr
    assert unit.read_text() == "mine"
