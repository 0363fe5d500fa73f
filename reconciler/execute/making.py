"""The guest in which images are made (drivers/guest/make.sh): what it boots with, and what becomes of what it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from reconciler.drivers.guest import makers
from reconciler.drivers.images.packing import Job, JobKind, Pack
from reconciler.drivers.images.superblock import trim
from reconciler.drivers.kernels.fetch import fetch
from reconciler.drivers.vmm.backend import Accelerator
from reconciler.drivers.vmm.disks import create_ext4
from reconciler.drivers.vmm.task import Format, Task, TaskDisk, processors, run_task
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import KernelPaths, Paths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.units import GIB, MIB, human_size
from reconciler.model.artifacts import DebianKernel, Kernel

KERNEL = Kernel(name="maker", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))
"""What boots the guest, whatever kernel the image is for: how it is made is no part of what it is."""
MEMORY = 1024 * MIB
SECONDS = 3600
MAX_SIZE = 64 * GIB
_BLOCK = 4096
_ROOM = 256 * MIB
_SAID = re.compile(r"banger: (doing|failed|done) ?(.*)")
_TAIL = 15


def packer(paths: Paths, accelerator: Callable[[Path], Accelerator]) -> Pack:
    """What makes images in guests, with the kernels of this cache."""

    def pack(job: Job, squashfs: Path, scratch: Path, progress: Progress) -> None:
        fetch(KERNEL, paths, Share(progress, 0.1))
        kernel = paths.kernel(KERNEL.id)
        progress.update(0.1, "starting the guest that makes it")
        told = Told(job, Share(progress, 0.9, 0.1))
        folder = scratch / "guest"
        folder.mkdir()
        try:
            run_task(_task(job, squashfs, folder, kernel), accelerator(kernel.vmlinux), told.hear)
            told.require_done()
            trim(squashfs)
        except BaseException:
            squashfs.unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return pack


def _task(job: Job, squashfs: Path, folder: Path, kernel: KernelPaths) -> Task:
    """The guest, with its disks made; `squashfs` is the one that it writes."""
    makers.write_initramfs(kernel, folder / "initrd")
    makers.write_job(_values(job), folder / "job")
    room = min(MAX_SIZE, shutil.disk_usage(folder).free - _ROOM) // _BLOCK * _BLOCK
    if room < _ROOM:
        raise BangerError(f"{human_size(max(room, 0))} are free where images are made", hint=f"df -h {folder}")
    with squashfs.open("xb") as out:
        out.truncate(room)
    return Task(
        vmlinux=kernel.vmlinux,
        initrd=folder / "initrd",
        disks=(*_disks(job, folder, room), *_own_disks(kernel, folder, squashfs)),
        memory=MEMORY,
        cpus=processors(),
        network=job.kind is JobKind.BUILD,
        scratch=folder,
        seconds=SECONDS,
    )


def _values(job: Job) -> dict[str, bytes]:
    values = {"kind": f"{job.kind}\n".encode()}
    for number, step in enumerate(job.steps):
        values[f"titles/{number:03}"] = step.title.encode() + b"\n"
        values[f"steps/{number:03}.{step.kind}"] = step.content
    return values


def _disks(job: Job, folder: Path, room: int) -> tuple[TaskDisk, ...]:
    if job.kind is JobKind.DISK:
        # A journal may have to be replayed, which the file is not to see.
        return (TaskDisk(serial="root", path=job.root, format=Format(job.format), kept=False),)
    root = TaskDisk(serial="root", path=job.root, readonly=True)
    if job.overlay is not None:
        return root, TaskDisk(serial="overlay", path=job.overlay, kept=False)
    create_ext4(folder / "overlay", room, "overlay")
    return root, TaskDisk(serial="overlay", path=folder / "overlay")


def _own_disks(kernel: KernelPaths, folder: Path, squashfs: Path) -> tuple[TaskDisk, ...]:
    return (
        TaskDisk(serial="job", path=folder / "job", readonly=True),
        TaskDisk(serial="modules", path=kernel.modules, readonly=True),
        TaskDisk(serial="out", path=squashfs),
    )


class Told:
    """What the guest says: lines of its own for us, and what its programs write, for whoever looks for a failure."""

    def __init__(self, job: Job, progress: Progress) -> None:
        # The steps, and: looking, cleaning up, packing.
        self._parts = len(job.steps) + 3
        self._progress = progress
        self._at = 0
        self._tail: list[str] = []
        self._failed: str | None = None
        self._done = False

    def hear(self, line: str) -> None:
        text = "".join(char if char.isprintable() else " " for char in line).strip()[:500]
        match = _SAID.fullmatch(text)
        if match is None:
            if text:
                self._tail = [*self._tail[-_TAIL:], text]
            return
        word, rest = match.groups()
        if word == "doing":
            self._at += 1
            self._progress.update(min(self._at / (self._parts + 1), 0.95), rest)
        elif word == "failed":
            self._failed = self._failed or rest
        else:
            self._done = True

    def require_done(self) -> None:
        """Raises BangerError if the guest did not say that it had finished."""
        if self._failed is None and self._done:
            return
        said = "".join(f"\n  {line}" for line in self._tail)
        if self._failed is not None:
            raise BangerError(f"{self._failed}{':' + said if said else ''}")
        raise BangerError(
            f"the guest that makes the image ended in the middle{':' + said if said else ''}",
            error_class=ErrorClass.RETRYABLE,
        )
