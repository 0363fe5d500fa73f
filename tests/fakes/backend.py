"""A `Backend` whose VMs are entries of a process table that is a dictionary."""

from __future__ import annotations

import itertools
from dataclasses import replace

from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind, Boot, Capabilities, Forward, StopOutcome, check
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Progress
from reconciler.lib.units import MIB

TCG = Accelerator(AcceleratorKind.TCG)


class FakeBackend:
    """`table` is the process table by VM id; `boots` what each start was told; VMs named in `broken` do not start."""

    name = "fake"
    capabilities = Capabilities(
        max_disks=24,
        max_cpus=64,
        min_memory=64 * MIB,
        user_network=True,
        tap_network=True,
        accelerators=frozenset({AcceleratorKind.TCG}),
    )

    def __init__(self) -> None:
        self.table: dict[str, Vmm] = {}
        self.boots: dict[str, Boot] = {}
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.kills: list[str] = []
        self.broken: set[str] = set()
        self.unreadable = False
        self._pids = itertools.count(100_000)

    def find(self, install: str, *, settled: bool = False) -> dict[str, Vmm]:
        """Stands in for `drivers.vmm.probe.find`."""
        if self.unreadable:
            raise BangerError("cannot list the processes in /proc: Permission denied")
        return {vm_id: vmm for vm_id, vmm in self.table.items() if vmm.install == install}

    def start(self, boot: Boot, accelerator: Accelerator) -> Vmm:
        check(boot, self.capabilities)
        if boot.label in self.broken:
            raise BangerError(f"VM {boot.label} does not start")
        if boot.vm_id not in self.table:
            self.starts.append(boot.label)
            self.boots[boot.vm_id] = boot
            self.add(boot.install, boot.vm_id)
        return self.table[boot.vm_id]

    def add(self, install: str, vm_id: str) -> Vmm:
        """A VMM that is there, whoever started it."""
        self.table[vm_id] = Vmm(pid=next(self._pids), start_time=1, vm_id=vm_id, install=install)
        return self.table[vm_id]

    def stop(self, paths: VmPaths, vmm: Vmm, deadline: float, progress: Progress) -> StopOutcome:
        self.stops.append(self.boots[vmm.vm_id].label)
        return StopOutcome.POWERDOWN if self.table.pop(vmm.vm_id, None) else StopOutcome.ALREADY_GONE

    def kill(self, vmm: Vmm) -> None:
        self.kills.append(self.boots[vmm.vm_id].label)
        self.table.pop(vmm.vm_id, None)

    def forward(self, paths: VmPaths, wanted: frozenset[Forward]) -> None:
        (vm_id,) = (vm_id for vm_id in self.table if self.boots[vm_id].paths == paths)
        nic = self.boots[vm_id].nic
        assert nic is not None and nic.tap is None
        forwards = tuple(sorted(wanted, key=lambda f: f.host_port))
        self.boots[vm_id] = replace(self.boots[vm_id], nic=replace(nic, forwards=forwards))

    def power_cut(self) -> None:
        """A reboot of the host: nothing runs any more."""
        self.table.clear()

    def holds(self, tap: str) -> bool:
        """Whether a running VMM has the tap open."""
        return any((nic := self.boots[vm_id].nic) is not None and nic.tap == tap for vm_id in self.table)
