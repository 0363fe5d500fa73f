"""The file for OpenSSH's own programs: there if wanted, right after every change, and written only when it changes."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.host import Host, desired, network, vm


def hosts(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("Host ")]


def settings(config: Path, host: str) -> dict[str, str]:
    text = subprocess.run(["ssh", "-F", config, "-G", host], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_without_a_wish_there_is_no_file(host: Host) -> None:
    host.apply(desired(vm("dev")))
    assert not host.paths.ssh_config.exists()
    assert "Host dev.env.vm dev.vm" in host.service.ssh_config().text


def test_it_follows_the_vms(host: Host) -> None:
    host.service.keep_ssh_config(True)
    assert hosts(host.paths.ssh_config) == []
    host.apply(desired(vm("dev"), vm("web", network="none")))
    assert hosts(host.paths.ssh_config) == ["Host dev.env.vm dev.vm"]
    host.apply(desired(vm("dev"), name="other"))
    assert hosts(host.paths.ssh_config) == ["Host dev.env.vm", "Host dev.other.vm"]
    host.apply(desired(vm("one"), name="other"))
    assert hosts(host.paths.ssh_config) == ["Host dev.env.vm dev.vm", "Host one.other.vm one.vm"]
    host.service.keep_ssh_config(False)
    host.apply(desired(vm("dev")))
    assert not host.paths.ssh_config.exists()


def test_a_second_pass_writes_nothing(host: Host) -> None:
    host.service.keep_ssh_config(True)
    host.apply(desired(vm("dev")))
    before = host.files()
    host.apply(desired(vm("dev")))
    host.service.keep_ssh_config(True)
    assert host.files() == before


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """In a folder whose sockets have short paths, as runtime folders do."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = Host(Path(folder), monkeypatch)
        yield made
        made.service.close()


def test_ssh_understands_it(short: Host) -> None:
    host = short
    host.service.keep_ssh_config(True)
    host.apply(desired(vm("dev", user="me"), vm("web", network="lab"), networks=[network()]))
    found = settings(host.paths.ssh_config, "dev.vm")
    port = host.service.vms(None)[0].details["forwards"]["22"]
    place = host.paths.vm("env", "dev")
    assert (found["hostname"], found["port"], found["user"]) == ("127.0.0.1", str(port), "me")
    assert found["userknownhostsfile"] == str(place.known_hosts)
    assert found["globalknownhostsfile"] == "/dev/null"
    assert found["stricthostkeychecking"] == "true"
    assert found["forwardagent"] == "no"
    assert found["controlpath"] == f"{place.ssh_shared}.{port}.me"
    assert found["hostkeyalias"] in place.known_hosts.read_text()
    assert settings(host.paths.ssh_config, "web.env.vm")["hostname"] == "172.30.7.2"


def test_what_the_user_has_for_all_hosts_has_no_say(host: Host, tmp_path: Path) -> None:
    host.service.keep_ssh_config(True)
    host.apply(desired(vm("dev")))
    mine = tmp_path / "mine"
    bad = "StrictHostKeyChecking no\nUserKnownHostsFile /x\nUser you\nForwardAgent yes\nProxyJump j\nHostKeyAlias k"
    mine.write_text(f'Include "{host.paths.ssh_config}"\nHost *\n{bad}\nCompression yes\n')
    found = settings(mine, "dev.vm")
    assert (found["stricthostkeychecking"], found["user"], found["forwardagent"]) == ("true", "root", "no")
    assert "proxyjump" not in found and found["hostkeyalias"] != "k" and found["compression"] == "yes"


def test_a_failed_write_is_told_and_the_apply_stands(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.daemon import sshconfig

    host.service.keep_ssh_config(True)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sshconfig, "write_atomic", full)
    host.apply(desired(vm("dev")))
    assert host.running() == {"env/dev"}
    assert any("No space left" in note and "not up to date" in note for note in host.reporter.notes)


def test_a_long_runtime_folder_is_one_without_sharing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path / ("x" * 80), monkeypatch)
    host.apply(desired(vm("dev")))
    text = host.service.ssh_config().text
    assert "ControlPath none" in text and "ControlMaster" not in text
    host.service.close()
