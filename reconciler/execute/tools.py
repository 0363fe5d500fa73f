"""What the actions work with, handed in by the daemon, so that a test can hand in something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.drivers.vmm.backend import Accelerator, Backend
from reconciler.execute.boots import BootGate
from reconciler.helper.client import HelperClient
from reconciler.lib.clock import Clock, SystemClock
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.actions import Action, DeleteBridge, DeleteTap, EnsureBridge, EnsureRules, EnsureTap, StartVm
from reconciler.model.plan import Plan
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal


@dataclass(slots=True)
class _HelperDoor:
    """The helper, once it is open. Copies of tools (`dataclasses.replace`) have it in common."""

    client: HelperClient | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True, kw_only=True)
class Tools:
    """The doors of one operation. `helper` is opened when the first action needs it, and only once."""

    environment: str
    paths: Paths
    inventory: Inventory
    journal: Journal
    clock: Clock
    backend: Backend
    accelerator: Callable[[Path], Accelerator]
    """Picks the accelerator that really boots the given kernel."""
    open_helper: Callable[[], HelperClient]
    boots: BootGate = field(default_factory=lambda: BootGate(SystemClock()))
    """Shared by all tools of a process: they boot guests on the same processors."""
    ports: threading.Lock = field(default_factory=threading.Lock)
    """Held from choosing a loopback port to recording it; shared likewise."""
    _door: _HelperDoor = field(default_factory=_HelperDoor)

    def helper(self) -> HelperClient:
        with self._door.lock:
            if self._door.client is None:
                self._door.client = self.open_helper()
            return self._door.client

    def prepare(self, plan: Plan) -> None:
        """Opens the helper in the calling thread if the plan will need it.

        Root's own helper dies with the thread that started it (PR_SET_PDEATHSIG), so that must not be one of a
        pool's. If it cannot be opened, the steps that need it say so; the others do not care.
        """
        if any(_needs_helper(step.action) for step in plan.steps):
            try:
                self.helper()
            except BangerError:
                pass

    def close(self) -> None:
        with self._door.lock:
            if self._door.client is not None:
                self._door.client.close()
                self._door.client = None


def _needs_helper(action: Action) -> bool:
    if isinstance(action, StartVm):
        return action.vm.bridged
    return isinstance(action, (EnsureBridge, EnsureRules, DeleteBridge, EnsureTap, DeleteTap))
