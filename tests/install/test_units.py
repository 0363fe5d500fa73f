"""The units: systemd finds nothing wrong with them, and little exposed. Skipped without systemd-analyze(1)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.install import layout
from reconciler.lib.paths import BUILDER_SOCKET, HELPER_SOCKET, SERVICE_RUNTIME

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")

FOLDER = layout.PACKAGE.parent / "systemd"
# systemd's own scale: 10 is everything, 0 nothing.
EXPOSURE = {"banger-controller.service": 2.5, "banger-helper.service": 4.0}


def analyze(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env},
    )


def test_systemd_accepts_the_system_units(tmp_path: Path) -> None:
    installed = layout.system(tmp_path / "root")
    units = []
    for file in installed.files:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        # The programs are looked for, and on this host they are only below the prefix.
        file.path.write_bytes(file.content.replace(b"=/usr/lib/banger", f"={tmp_path}/root/usr/lib/banger".encode()))
        file.path.chmod(file.mode)
        if file.path.suffix in (".service", ".socket"):
            units.append(str(file.path))
    assert len(units) == len(layout.SYSTEM_UNITS)
    done = analyze("verify", "--man=no", "--recursive-errors=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_accepts_the_users_unit(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for file in layout.user(home).files:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_bytes(file.content)
        file.path.chmod(file.mode)
    unit = tmp_path / ".config/systemd/user/banger-controller.service"
    # %h is from the user database, whatever HOME says.
    unit.write_text(unit.read_text().replace("%h", str(tmp_path)))
    done = analyze("verify", "--user", "--man=no", "--recursive-errors=no", str(unit), **home)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_little_is_exposed(unit: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE[unit] * 10:.0f}", str(FOLDER / unit))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert done.returncode == 0 and float(found[1]) <= EXPOSURE[unit], done.stdout


def test_the_places_are_those_of_the_code() -> None:
    def value(unit: str, key: str) -> str:
        (found,) = re.findall(rf"^{key}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)
        return str(found)

    assert value("banger-helper.socket", "ListenStream") == str(HELPER_SOCKET)
    assert value("banger-builder.socket", "ListenStream") == str(BUILDER_SOCKET)
    assert value("banger-controller.service", "Environment") == f"BANGER_BUILDER={BUILDER_SOCKET}"
    assert f"/run/{value('banger-controller.service', 'RuntimeDirectory')}" == str(SERVICE_RUNTIME)
    assert value("banger-controller.service", "ConfigurationDirectory").split()[0] == "banger"


def test_children_get_the_system_calls_that_they_need() -> None:
    # Without capset no child of `lib.run` starts, without seccomp no QEMU.
    lines = re.findall(r"^SystemCallFilter=(.*)$", (FOLDER / "banger-controller.service").read_text(), re.MULTILINE)
    assert lines == ["@system-service", "~@privileged", "capset seccomp"]


@pytest.mark.parametrize("unit", ["banger-controller.service", "user/banger-controller.service"])
def test_the_end_of_the_controller_is_not_the_end_of_vms(unit: str) -> None:
    text = (FOLDER / unit).read_text()
    for line in ("KillMode=process", "OOMPolicy=continue", "Type=notify", "NotifyAccess=main"):
        assert f"\n{line}\n" in text
    if not unit.startswith("user/"):
        assert "\nRuntimeDirectoryPreserve=yes\n" in text


def test_the_controller_has_no_privileges_and_gains_none() -> None:
    text = (FOLDER / "banger-controller.service").read_text()
    assert "\nCapabilityBoundingSet=\n" in text
    assert "\nNoNewPrivileges=yes\n" in text
