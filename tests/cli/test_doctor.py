"""doctor: one finding per check, one command for all that is missing, and no trace of having looked."""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from reconciler import doctor
from reconciler.doctor import Check, Status, network, qemu, storage, tools, user
from reconciler.drivers.network import connect
from reconciler.lib import debian
from reconciler.lib.paths import Paths
from reconciler.lib.run import Completed
from tests.cli.conftest import Run
from tests.fakes.helper import FakeHelper

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with nothing installed, seen by somebody who is not root."""
    for module in (tools, qemu, user):
        monkeypatch.setattr(module, "which", lambda program: None)
    monkeypatch.setattr("reconciler.drivers.guest.initramfs.which", lambda program: None)
    monkeypatch.setattr("reconciler.drivers.vmm.accel.which", lambda program: None)
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "no-keyring.gpg")
    monkeypatch.setattr(network, "_TUN", tmp_path / "no-tun")
    monkeypatch.setattr(network, "HELPER_SOCKET", tmp_path / "no-socket")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_what_is_missing_is_one_command(run: Run, bare_host: None) -> None:
    result = run("doctor")
    assert result.exit_code == 1
    command = result.stderr.splitlines()[-1]
    assert command.startswith("missing packages: apt-get install bubblewrap busybox-static debian-archive-keyring ")
    assert {"qemu-system-x86", "mmdebstrap", "squashfs-tools", "openssh-client", "uidmap"} <= set(command.split())


def test_bridges_are_a_warning_only(run: Run, bare_host: None) -> None:
    found = {item["name"]: item for item in json.loads(run("doctor", "-o", "json").stdout)["items"]}
    assert {found[name]["status"] for name in ("tun", "root-helper")} == {"warn"}
    assert found["qemu"] == {
        "kind": "check",
        "name": "qemu",
        "status": "fail",
        "detail": "qemu-system-x86_64 is not installed",
        "hint": "apt-get install qemu-system-x86",
        "packages": ["qemu-system-x86"],
    }


def test_every_package_that_doctor_names_is_installed_by_make() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    listed = re.search(r"^PACKAGES := (.*)$", text, re.MULTILINE)
    assert listed is not None
    named = {tool.package for tool in tools.TOOLS} | {
        qemu._PACKAGE,
        "busybox-static",
        "debian-archive-keyring",
        "uidmap",
    }
    assert named <= set(listed[1].split())


def test_all_names_differ_and_looking_leaves_no_trace(tmp_path: Path) -> None:
    paths = Paths.discover({"BANGER_HOME": str(tmp_path / "home")})
    checks = doctor.examine(paths)
    assert len({check.name for check in checks}) == len(checks) > 20
    assert not (tmp_path / "home").exists()
    assert all(check.hint for check in checks if check.status is Status.FAIL)


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> list[Check]:
        raise PermissionError(13, "Permission denied", "/etc/subuid")

    monkeypatch.setattr(user, "subordinate_ids", broken)
    checks = doctor.examine(Paths.discover({"BANGER_HOME": str(tmp_path)}))
    assert [(c.name, c.status) for c in checks if "could not be checked" in c.detail] == [("broken", Status.WARN)]


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    checks = list(storage.folders(Paths.discover({"BANGER_HOME": str(tmp_path / "home")})))
    assert {check.status for check in checks} == {Status.FAIL}
    assert all("is not a folder" in check.detail for check in checks)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright", "7.2.22"),
        ("QEMU emulator version 10.0.0", "10.0.0"),
        ("QEMU emulator version 9.1", "9.1"),
        ("Segmentation fault", None),
    ],
)
def test_qemus_version(monkeypatch: pytest.MonkeyPatch, said: str, version: str | None) -> None:
    monkeypatch.setattr(qemu, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(qemu, "run", lambda argv, **more: Completed(tuple(argv), 0, said.encode(), b""))
    assert qemu.qemu_version() == version
    (check,) = qemu.binary()
    assert check.status is (Status.OK if version else Status.FAIL)


def test_an_old_qemu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(qemu, "qemu_version", lambda: "5.2.0")
    (check,) = qemu.binary()
    assert (check.status, check.hint) == (Status.FAIL, "QEMU 7.2 or newer is needed")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("dev:100000:65536\n", 65536),
        ("1000:100000:65536\nother:1:1\n", 65536),
        ("dev:1:2\ndev:5:3\n", 5),
        ("dev:1\n#dev:1:9\ndev:1:x\n", 0),
        ("", 0),
    ],
)
def test_subordinate_ids(tmp_path: Path, text: str, ids: int) -> None:
    path = tmp_path / "subuid"
    path.write_text(text)
    assert user.granted(path, "dev", 1000) == ids
    assert user.granted(tmp_path / "absent", "dev", 1000) == 0


def _filter(helper: FakeHelper, monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(connect, "open_helper", lambda **_: nullcontext(helper))
    return list(network.packet_filter())


def test_chains_of_others_that_drop_are_named_with_a_way_through(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = FakeHelper()
    assert [check.status for check in _filter(helper, monkeypatch)] == [Status.OK]
    helper.blockers = ("ip filter FORWARD", "inet firewalld filter_FORWARD", "inet mine forward")
    checks = _filter(helper, monkeypatch)
    assert [check.name for check in checks] == ["packet-filter", "packet-filter-2", "packet-filter-3"]
    assert all(check.status is Status.WARN for check in checks)
    assert "ip filter FORWARD" in checks[0].detail and "DOCKER-USER" in str(checks[0].hint)
    assert "firewall-cmd" in str(checks[1].hint) and "inet mine forward" in str(checks[2].hint)


def test_a_packet_filter_that_cannot_be_read_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = FakeHelper()
    helper.unreadable = True
    (check,) = _filter(helper, monkeypatch)
    assert check.status is Status.WARN and "nft: command not found" in check.detail and check.hint
