"""A VM with an errand: it boots, does one thing, reboots, and that is the end of it.

Unlike a VM of the file it has no sockets, no name and no inventory. QEMU stays in the foreground and dies with its
parent, so that nothing of it outlives this process, however that ends; its disks lie in the caller's scratch folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconciler.drivers.vmm import cmdline
from reconciler.drivers.vmm.backend import Accelerator
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import CommandError, pipeline, require
from reconciler.lib.units import MIB


class Format(StrEnum):
    """Of a disk. It is always said, never guessed by QEMU: a guest could write what it would be taken for."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDisk:
    """A disk of the guest; one that is not `kept` can be written, and forgets it."""

    serial: str
    path: Path
    format: Format = Format.RAW
    readonly: bool = False
    kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One boot.

    Parameters
    ----------
    memory: bytes.
    network: whether the guest reaches the outside, through QEMU's user-mode network.
    scratch: a folder for what disks that are not kept get written.
    seconds: after which it is ended.
    """

    vmlinux: Path
    initrd: Path
    disks: tuple[TaskDisk, ...]
    memory: int
    cpus: int
    network: bool
    scratch: Path
    seconds: int


def run_task(task: Task, accelerator: Accelerator, on_line: Callable[[str], None]) -> None:
    """Boots the guest and returns when it has ended.

    Parameters
    ----------
    on_line: gets each line of its console.

    Raises BangerError if QEMU does not start, or does not end in time. What the guest did is in what it said.
    """
    require(cmdline.PROGRAM, cmdline.PACKAGE)
    # Each link of the chain dies with the one before it: `timeout` with us, QEMU with `timeout`.
    chain = ["timeout", "--kill-after=5", str(task.seconds), "setpriv", "--pdeathsig", "KILL", "--"]
    try:
        pipeline([[*chain, *argv(task, accelerator)]], env={"TMPDIR": str(task.scratch)}, on_line=on_line)
    except CommandError as problem:
        if problem.returncode in (124, 137):
            raise BangerError(
                f"the guest did not finish within {task.seconds // 60} minutes", error_class=ErrorClass.RETRYABLE
            ) from problem
        raise


def argv(task: Task, accelerator: Accelerator) -> list[str]:
    """The command line of QEMU. Its console is its stderr."""
    words = [cmdline.PROGRAM, "-M", cmdline.MACHINE, *cmdline.machine(accelerator, task.memory)]
    words += ["-smp", str(task.cpus), "-m", f"{task.memory // MIB}M"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    words += ["-chardev", "file,id=console,path=/dev/stderr", "-serial", "chardev:console"]
    words += ["-kernel", str(task.vmlinux), "-initrd", str(task.initrd)]
    words += ["-append", cmdline.kernel_cmdline("", accelerator)]
    for index, disk in enumerate(task.disks):
        words += _disk(index, disk)
    if task.network:
        words += ["-netdev", "user,id=net0", "-device", "virtio-net-device,netdev=net0"]
    return [*words, "-device", "virtio-rng-device"]


def _disk(index: int, disk: TaskDisk) -> list[str]:
    # A full disk of the host is an error in the guest; QEMU's own way would be to wait for somebody.
    options = f"format={disk.format},if=none,werror=report,rerror=report"
    options += ",readonly=on" if disk.readonly else ",discard=unmap,cache=unsafe"
    options += "" if disk.kept else ",snapshot=on"
    return [
        "-drive",
        f"id=disk{index},file={cmdline.escaped(disk.path)},{options}",
        "-device",
        f"virtio-blk-device,drive=disk{index},serial={disk.serial}",
    ]


def processors() -> int:
    """How many the guest gets."""
    return min(4, len(os.sched_getaffinity(0)))
