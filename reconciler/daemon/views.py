"""What is read without changing anything: statuses, the trash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.daemon.engine import Engine
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.observed import ObservedVm, Unknown
from reconciler.model.status import ObjectStatus
from reconciler.observe.guests import Readiness, look_at_all
from reconciler.observe.status import environment_status, network_statuses, vm_status
from reconciler.observe.vms import observe_processes, observe_vm

if TYPE_CHECKING:
    from reconciler.api.service import TrashEntry
    from reconciler.model.desired import DesiredState
    from reconciler.model.usage import VmUsage

_PROBE_SECONDS = 5.0
_QUICK_SECONDS = 0.1


def status(engine: Engine, environment: str) -> list[ObjectStatus]:
    """Every object, each VM probed now."""
    inventory = engine.inventory()
    row = inventory.environment(environment)
    desired = _pinned(engine.paths, row.desired) if row else None
    observed = engine.observe(environment, desired)
    known(observed.processes or {})
    failures = engine.journal().last_failures(environment)
    vms: dict[str, ObjectStatus] = {}

    def add(vm: ObservedVm, readiness: Readiness) -> None:
        vms[vm.name] = vm_status(environment, vm, readiness, failures.get(f"vm/{vm.name}"))

    look_at_all(list(observed.vms.values()), environment, engine.paths, lambda vm: _PROBE_SECONDS, add)
    return environment_status(desired, observed, vms, failures)


def _pinned(paths: Paths, desired: DesiredState) -> DesiredState:
    if not any(image.unresolved for image in desired.images.values()):
        return desired
    from reconciler.daemon.pinning import by_memory  # pulls in what makes images

    return by_memory(paths, desired)


def networks(engine: Engine, environment: str) -> list[ObjectStatus]:
    """The networks, and who is on them; no guest is asked."""
    row = engine.inventory().environment(environment)
    desired = row.desired if row else None
    observed = engine.observe(environment, desired)
    known(observed.processes or {})
    return network_statuses(desired, observed, engine.journal().last_failures(environment))


def observe_vms(engine: Engine, environment: str) -> Mapping[str, ObservedVm]:
    """The VMs alone: a few milliseconds, where a whole observation reads netlink too."""
    inventory = engine.inventory()
    install = inventory.install
    processes = known(observe_processes(install))
    return {row.name: observe_vm(row, install, engine.paths, processes) for row in inventory.vms(environment)}


def known(processes: Mapping[str, Vmm] | Unknown) -> Mapping[str, Vmm]:
    """Raises BangerError if the process table could not be read: no VM is then known to run, or not to (I4)."""
    if isinstance(processes, Unknown):
        raise BangerError(f"which VMs run is unknown: {processes.reason}")
    return processes


def vms(engine: Engine, environment: str | None) -> list[ObjectStatus]:
    """For `ps`. A VM that was seen ready in this very boot is not asked again: that would cost each guest a
    forked sshd, and the reader a second; `status` does ask."""
    inventory = engine.inventory()
    install = inventory.install
    processes = known(observe_processes(install))
    rows = inventory.vms(environment)
    found: dict[tuple[str, str], ObjectStatus] = {}
    to_ask: dict[str, list[ObservedVm]] = {}
    for row in rows:
        vm = observe_vm(row, install, engine.paths, processes)
        if vm.running and vm.ready_at is not None:
            found[row.environment, row.name] = vm_status(row.environment, vm, Readiness(ready=True, reason="SeenReady"))
        else:
            to_ask.setdefault(row.environment, []).append(vm)
    for name, asked in to_ask.items():

        def add(vm: ObservedVm, readiness: Readiness, name: str = name) -> None:
            found[name, vm.name] = vm_status(name, vm, readiness)

        look_at_all(asked, name, engine.paths, lambda vm: _QUICK_SECONDS, add)
    return [found[row.environment, row.name] for row in rows]


def usage(engine: Engine, environment: str | None) -> list[VmUsage]:
    """What the VMs use now; no guest is asked."""
    from reconciler.observe.usage import observe_usage

    inventory = engine.inventory()
    install = inventory.install
    processes = known(observe_processes(install))
    return [observe_usage(row, install, engine.paths, processes) for row in inventory.vms(environment)]


def trash(paths: Paths) -> list[TrashEntry]:
    # ruff: noqa: PLC0415  # `ps` does without
    from reconciler.api.service import TrashEntry
    from reconciler.drivers.cache.trash import entries

    return [
        TrashEntry(
            entry=name,
            environment=manifest.environment,
            name=manifest.name,
            trashed_at=manifest.trashed_at,
            size=_disk_usage(paths.trash_entry(name)),
        )
        for name, manifest in entries(paths)
    ]


def _disk_usage(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
