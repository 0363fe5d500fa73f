"""A start that finds a VMM which is still daemonizing: what stays is found, and nothing is started beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.drivers.vmm import qemu
from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind, Boot
from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.qmp import QmpError
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.run import CommandError

FIRST = Vmm(pid=1, start_time=10, vm_id="vm", install="i")
SECOND = Vmm(pid=2, start_time=11, vm_id="vm", install="i")
LAUNCHED = Vmm(pid=3, start_time=12, vm_id="vm", install="i")


def boot_of(folder: Path) -> Boot:
    return Boot(
        install="i",
        vm_id="vm",
        label="env/vm",
        cpus=1,
        memory=1 << 27,
        vmlinux=folder,
        initrd=folder,
        cmdline="",
        disks=(),
        nic=None,
        paths=VmPaths(folder, folder / "run"),
    )


@pytest.mark.parametrize(
    ("found", "answers", "expected"),
    [
        pytest.param([FIRST, FIRST], [True], FIRST, id="it stands"),
        pytest.param([FIRST, SECOND, SECOND, SECOND], [True, True], SECOND, id="the second answers for the first"),
        pytest.param([FIRST, SECOND, SECOND], [False, True], SECOND, id="the first ends when the second is ready"),
        pytest.param([FIRST, None], [False], LAUNCHED, id="it ends before it is ready"),
        pytest.param([FIRST, None, None], [True], LAUNCHED, id="it answers and ends"),
        pytest.param([None], [], LAUNCHED, id="there is none"),
    ],
)
def test_what_is_there_to_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: Sequence[Vmm | None],
    answers: Sequence[bool],
    expected: Vmm,
) -> None:
    looks, asked = iter(found), iter(answers)

    def find(install: str) -> dict[str, Vmm]:
        vmm = next(looks)
        return {} if vmm is None else {vmm.vm_id: vmm}

    class Monitor:
        def __init__(self, path: Path, timeout: float) -> None:
            if not next(asked):
                raise QmpError("nobody listens")

        def close(self) -> None:
            pass

    monkeypatch.setattr(qemu, "Qmp", Monitor)
    monkeypatch.setattr(qemu, "check", lambda *_: None)
    monkeypatch.setattr(qemu, "require", lambda *_: None)
    monkeypatch.setattr(qemu.probe, "find", find)
    monkeypatch.setattr(qemu.probe, "pidfd", lambda vmm: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(qemu.probe, "wait", lambda fd, seconds: True)
    monkeypatch.setattr(qemu.Qemu, "_launch", lambda *_: LAUNCHED)
    boot = boot_of(tmp_path)
    assert qemu.Qemu().start(boot, Accelerator(AcceleratorKind.TCG)) == expected


@pytest.mark.parametrize(
    ("said", "found", "expected", "runs"),
    [
        pytest.param('Failed to get "write" lock', [None, SECOND, SECOND], SECOND, 1, id="the other stays"),
        pytest.param('Failed to get "write" lock', [None, None, LAUNCHED], LAUNCHED, 2, id="the other was ending"),
        pytest.param("Cannot lock pid file: busy", [None, None, LAUNCHED], LAUNCHED, 2, id="it has the pid file"),
        pytest.param("no such machine", [None], None, 1, id="another error is one"),
    ],
)
def test_a_start_that_meets_one_of_a_killed_banger(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    found: Sequence[Vmm | None],
    expected: Vmm | None,
    runs: int,
) -> None:
    looks, ran = iter(found), []

    def find(install: str) -> dict[str, Vmm]:
        vmm = next(looks)
        return {} if vmm is None else {vmm.vm_id: vmm}

    def run(boot: Boot, accelerator: Accelerator) -> None:
        ran.append(boot)
        if len(ran) == 1:
            raise CommandError("qemu failed", ["qemu"], 1, said)

    class Monitor:
        def __init__(self, path: Path, timeout: float) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(qemu, "Qmp", Monitor)
    monkeypatch.setattr(qemu, "check", lambda *_: None)
    monkeypatch.setattr(qemu, "require", lambda *_: None)
    monkeypatch.setattr(qemu, "_run", run)
    monkeypatch.setattr(qemu.probe, "find", find)
    monkeypatch.setattr(qemu.probe, "pidfd", lambda vmm: os.open(os.devnull, os.O_RDONLY))
    boot = boot_of(tmp_path)
    if expected is None:
        with pytest.raises(BangerError, match=said):
            qemu.Qemu().start(boot, Accelerator(AcceleratorKind.TCG))
    else:
        assert qemu.Qemu().start(boot, Accelerator(AcceleratorKind.TCG)) == expected
    assert len(ran) == runs
