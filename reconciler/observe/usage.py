"""What VMs use: read from /proc (proc(5)) and the disks' files; no guest and no VMM is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from reconciler.drivers.vmm.probe import PROC, Vmm
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.lib.paths import Paths
from reconciler.model.usage import DiskUsage, Running, VmUsage
from reconciler.store.inventory import VmRow

_BLOCK = 512  # of st_blocks, whatever the file system has: stat(2)
_USER, _SYSTEM, _START = 11, 12, 19  # utime, stime and starttime of /proc/<pid>/stat, counted from field 3


def observe_usage(row: VmRow, install: str, paths: Paths, processes: Mapping[str, Vmm], proc: Path = PROC) -> VmUsage:
    """One VM. A VMM that ends meanwhile does not run; a disk that is gone is left out."""
    place = paths.vm(row.environment, row.name)
    files = {
        "root": place.overlay,
        **{v.name: paths.volume(row.environment, row.name, v.name) for v in row.spec.volumes},
    }
    vmm = processes.get(row.id)
    tap = LinkOwner(install, os.geteuid(), row.environment, LinkKind.TAP, row.name).interface
    return VmUsage(
        environment=row.environment,
        name=row.name,
        cpus=row.spec.cpus,
        memory=row.spec.memory,
        disks=tuple(disk for name, path in files.items() if (disk := _disk(name, path)) is not None),
        now=_running(vmm, tap, proc) if vmm is not None else None,
    )


def _disk(name: str, path: Path) -> DiskUsage | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return DiskUsage(name=name, allocated=found.st_blocks * _BLOCK, size=found.st_size)


def _running(vmm: Vmm, tap: str, proc: Path) -> Running | None:
    folder = proc / str(vmm.pid)
    try:
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        if int(fields[_START]) != vmm.start_time:
            return None  # another process has its number
        resident = int((folder / "statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        # The VMM's own network namespace is where its tap is.
        received, sent = _traffic((folder / "net" / "dev").read_text(), tap)
    except (OSError, IndexError, ValueError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Running(
        uptime=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - vmm.start_time / ticks),
        cpu=(int(fields[_USER]) + int(fields[_SYSTEM])) / ticks,
        resident=resident,
        received=received,
        sent=sent,
    )


def _traffic(table: str, tap: str) -> tuple[int | None, int | None]:
    """What the guest received and sent: for its tap it is the other way round."""
    for line in table.splitlines():
        name, colon, counts = line.partition(":")
        if colon and name.strip() == tap:
            words = counts.split()
            return int(words[8]), int(words[0])
    return None, None
