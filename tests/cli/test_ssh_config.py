"""`banger ssh-config`: one line in the user's own file, and no other byte."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from reconciler.cli import sshinclude
from reconciler.lib.errors import BangerError
from tests.cli.conftest import Run
from tests.fakes.service import FakeService

OLD = b"# mine\r\nHost *\n  User me\n\n\tPort 2\n# no newline at the end"


@pytest.fixture
def config(tmp_path: Path, service: FakeService) -> Path:
    service.ssh_file = tmp_path / "state" / "ssh" / "config"
    service.ssh_file.parent.mkdir(parents=True)
    return tmp_path / "me" / ".ssh" / "config"


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Path:
    (tmp_path / "me").mkdir()
    return tmp_path / "me"


def test_print_changes_nothing(run: Run, service: FakeService, config: Path) -> None:
    for words in ((), ("--print",)):
        assert run("ssh-config", *words, "--ssh-config", str(config)).stdout == service.ssh_text
    assert [call[0] for call in service.calls] == ["ssh_config", "ssh_config"]
    assert not config.parent.exists()


def test_install_and_uninstall_leave_the_bytes_as_they_were(run: Run, service: FakeService, config: Path) -> None:
    config.parent.mkdir()
    config.write_bytes(OLD)
    config.chmod(0o640)
    line = f'Include "{service.ssh_file}"\n'.encode()
    for _ in range(2):
        assert run("ssh-config", "--install", "--ssh-config", str(config)).exit_code == 0
        assert config.read_bytes() == line + OLD
        assert config.stat().st_mode & 0o777 == 0o640
    assert service.ssh_file.exists()
    before = config.stat()
    assert "already" in run("ssh-config", "--install", "--ssh-config", str(config)).stderr
    assert (config.stat().st_mtime_ns, config.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    for _ in range(2):
        assert run("ssh-config", "--uninstall", "--ssh-config", str(config)).exit_code == 0
        assert config.read_bytes() == OLD
    assert not service.ssh_file.exists()
    assert os.listdir(config.parent) == ["config"]


def test_a_missing_file_and_folder_are_made_private(run: Run, config: Path) -> None:
    assert run("ssh-config", "--install", "--ssh-config", str(config)).exit_code == 0
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_stays_one(run: Run, home: Path, config: Path) -> None:
    dotfiles = home / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "ssh").write_bytes(OLD)
    config.parent.mkdir()
    config.symlink_to("../dotfiles/ssh")
    run("ssh-config", "--install", "--ssh-config", str(config))
    assert config.is_symlink()
    assert (dotfiles / "ssh").read_bytes().endswith(OLD)
    assert (dotfiles / "ssh").read_bytes().startswith(b"Include ")


def test_where_it_cannot_be_written_it_says_what_to_do(run: Run, home: Path) -> None:
    (home / "file").write_text("")
    done = run("ssh-config", "--install", "--ssh-config", str(home / "file" / "config"))
    assert done.exit_code == 1
    assert "cannot change" in done.stderr and "--print" in done.stderr


def test_two_choices_are_none(run: Run, config: Path, service: FakeService) -> None:
    assert run("ssh-config", "--install", "--uninstall", "--ssh-config", str(config)).exit_code == 2
    assert service.calls == []


def test_what_ssh_would_not_read_is_not_installed(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: service.ssh_file.parent.stat().st_uid + 1)
    monkeypatch.setattr("reconciler.cli.commands.sshconfig.owner", lambda path: 4242)
    done = run("ssh-config", "--install", "--ssh-config", str(config))
    assert (done.exit_code, config.exists()) == (1, False)
    assert "--print" in done.stderr


def test_many_at_once_put_one_line(config: Path) -> None:
    config.parent.mkdir()
    config.write_bytes(OLD)
    line = sshinclude.include_line(Path("/somewhere/config"))
    threads = [threading.Thread(target=sshinclude.install, args=(config, line)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert config.read_bytes() == line + OLD


@pytest.mark.parametrize(
    "name", ["plain", "my files", 'a"b', "back\\slash", "it's", "[ab]*?", "ü", "#x", "~", "a\\\\b"]
)
def test_ssh_reads_what_the_line_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config").write_text("Host there\n  Port 4711\n")
    (tmp_path / "config").write_bytes(sshinclude.include_line(folder / "config") + b"Host *\n  Port 1\n")
    shown = subprocess.run(
        ["ssh", "-F", tmp_path / "config", "-G", "there"], capture_output=True, text=True, check=True
    )
    assert "\nport 4711\n" in shown.stdout
    elsewhere = subprocess.run(
        ["ssh", "-F", tmp_path / "config", "-G", "else"], capture_output=True, text=True, check=True
    )
    assert "\nport 1\n" in elsewhere.stdout


@pytest.mark.parametrize("name", ["50%", "${HOME}", "a\nb"])
def test_what_the_line_cannot_name_is_refused(name: str) -> None:
    with pytest.raises(BangerError, match="ssh cannot include"):
        sshinclude.include_line(Path("/tmp") / name)
