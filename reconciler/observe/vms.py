"""VMs: the inventory beside the disks and the processes that are really there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

from reconciler.drivers.guest import farewell
from reconciler.drivers.guest.farewell import Farewell
from reconciler.drivers.vmm import probe
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths, VmPaths
from reconciler.model.ids import mac_address
from reconciler.model.observed import Ended, ObservedVm, ObservedVolume, Stray, Unknown
from reconciler.model.vm import Vm
from reconciler.store.inventory import VmRow


def observe_processes(install: str) -> dict[str, probe.Vmm] | Unknown:
    """The running VMMs of this state directory, by VM id."""
    try:
        return probe.find(install, settled=True)
    except (BangerError, OSError) as problem:
        return Unknown(str(problem))


def observe_vm(
    row: VmRow, install: str, paths: Paths, processes: Mapping[str, probe.Vmm] | Unknown, want: Vm | None = None
) -> ObservedVm:
    """One VM as it is now. `want` is what the file says of it, whose restart policy may ask how the VM ended."""
    vmm = None if isinstance(processes, Unknown) else processes.get(row.id)
    place = paths.vm(row.environment, row.name)
    asked = row.spec.restart.asks_why or (want is not None and want.restart.asks_why)
    gone = vmm is None and row.started_at is not None and not isinstance(processes, Unknown)
    return ObservedVm(
        name=row.name,
        id=row.id,
        spec=row.spec,
        mac=mac_address(install, row.environment, row.name),
        address=row.address,
        created=row.created,
        booted=row.booted,
        disk=place.overlay.exists(),
        pid=vmm.pid if vmm else None,
        forwards=row.forwards,
        created_at=row.created_at,
        started_at=row.started_at,
        ready_at=row.ready_at,
        halted=row.halted,
        condemned=row.condemned,
        generation=row.generation,
        uptime=_uptime(vmm) if vmm else None,
        shipped=_shipped(place) if row.spec.workspace or (want is not None and want.workspace) else None,
        ended=how_it_ended(place) if gone and asked else None,
    )


def how_it_ended(place: VmPaths) -> Ended | None:
    """What the traces of a VM tell that ran and does not; None if it seems never to have run.

    QEMU takes its pid file along when it ends in order (its `-pidfile`), as when the guest switches itself off or
    restarts (`-no-reboot`). A kill leaves it. A reboot of the host does too or removes all files of that folder, but
    leaves the console without the last words of a guest that was shut down.
    """
    if place.pidfile.exists():
        return Ended.FAILED
    match farewell.last_words(place.console_log):
        case Farewell.POWEROFF:
            return Ended.POWEROFF
        case Farewell.REBOOT:
            return Ended.REBOOT
        case Farewell.SILENT:
            return None
        case Farewell.NONE:
            return Ended.FAILED


def _shipped(place: VmPaths) -> str | None:
    try:
        return place.workspace.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _uptime(vmm: probe.Vmm) -> float:
    """Seconds, by the clock that the kernel stamps processes with: proc_pid_stat(5), `starttime`."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - vmm.start_time / os.sysconf("SC_CLK_TCK"))


def observe_strays(rows: Iterable[VmRow], processes: Mapping[str, probe.Vmm] | Unknown) -> tuple[Stray, ...]:
    """VMMs with our stamp that no entry of any environment knows."""
    if isinstance(processes, Unknown):
        return ()
    known = {row.id for row in rows}
    return tuple(Stray(vm_id=vm_id, pid=vmm.pid) for vm_id, vmm in sorted(processes.items()) if vm_id not in known)


def observe_volumes(environment: str, paths: Paths) -> tuple[ObservedVolume, ...]:
    found = []
    for file in sorted((paths.volumes / environment).glob("*/*.ext4")):
        try:
            found.append(ObservedVolume(vm=file.parent.name, name=file.stem, size=file.stat().st_size))
        except FileNotFoundError:
            continue  # moved to the trash this very moment
    return tuple(found)
