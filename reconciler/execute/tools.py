"""What the actions work with, handed in by the daemon, so that a test can hand in something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.drivers.vmm.backend import Accelerator, Backend
from reconciler.execute.boots import BootGate
from reconciler.helper.client import HelperClient
from reconciler.lib.clock import Clock, SystemClock
from reconciler.lib.paths import Paths
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal
from reconciler.store.retention import RetentionState


@dataclass(slots=True, kw_only=True)
class Tools:
    """The doors of one operation."""

    environment: str
    paths: Paths
    inventory: Inventory
    journal: Journal
    clock: Clock
    backend: Backend
    accelerator: Callable[[Path], Accelerator]
    """Picks the accelerator that really boots the given kernel."""
    helper: Callable[[], HelperClient]
    """The process's connection to the root helper, opened when the first action needs it. BangerError without one."""
    retention: RetentionState | None = None
    """What the cache's retention remembers; None where nothing of the cache may go."""
    roots: Callable[[], Mapping[str, str]] | None = None
    """Key of a cache's entry → what needs it, read anew by each call; None likewise."""
    boots: BootGate = field(default_factory=lambda: BootGate(SystemClock()))
    """Shared by all tools of a process: they boot guests on the same processors."""
    ports: threading.Lock = field(default_factory=threading.Lock)
    """Held from choosing a loopback port to recording it; shared likewise."""
