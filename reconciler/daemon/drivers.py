"""Which driver does what on this host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.drivers.images.packing import Pack
from reconciler.drivers.vmm import accel
from reconciler.drivers.vmm.backend import Accelerator
from reconciler.drivers.vmm.qemu import Qemu
from reconciler.execute.boots import BootGate
from reconciler.execute.making import packer
from reconciler.execute.tools import Tools
from reconciler.helper.client import HelperClient
from reconciler.lib.clock import Clock
from reconciler.lib.paths import Paths
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the operations of one process share, because they share one host."""

    clock: Clock
    boots: BootGate
    ports: threading.Lock
    helper: Callable[[], HelperClient]

    @classmethod
    def create(cls, clock: Clock, helper: Callable[[], HelperClient], paths: Paths) -> Shared:
        return cls(clock=clock, boots=BootGate(clock, shared=paths.boots), ports=threading.Lock(), helper=helper)


def make_tools(environment: str, paths: Paths, inventory: Inventory, journal: Journal, shared: Shared) -> Tools:
    """The real tools. Nothing is started or probed before it is needed."""

    def accelerator(vmlinux: Path) -> Accelerator:
        return accel.choose(vmlinux, cache=paths.accelerator)

    return Tools(
        environment=environment,
        paths=paths,
        inventory=inventory,
        journal=journal,
        clock=shared.clock,
        backend=Qemu(paths.consoles),
        accelerator=accelerator,
        boots=shared.boots,
        ports=shared.ports,
        helper=shared.helper,
    )


def real_packer(paths: Paths) -> Pack:
    """What makes images in guests on this host."""
    return packer(paths, lambda vmlinux: accel.choose(vmlinux, cache=paths.accelerator))
