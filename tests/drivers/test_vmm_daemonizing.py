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
from reconciler.lib.paths import VmPaths

FIRST = Vmm(pid=1, start_time=10, vm_id="vm", install="i")
SECOND = Vmm(pid=2, start_time=11, vm_id="vm", install="i")
LAUNCHED = Vmm(pid=3, start_time=12, vm_id="vm", install="i")


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
    boot = Boot(
        install="i",
        vm_id="vm",
        label="env/vm",
        cpus=1,
        memory=1 << 27,
        vmlinux=tmp_path,
        initrd=tmp_path,
        cmdline="",
        disks=(),
        nic=None,
        paths=VmPaths(tmp_path, tmp_path / "run"),
    )
    assert qemu.Qemu().start(boot, Accelerator(AcceleratorKind.TCG)) == expected
