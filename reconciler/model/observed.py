"""What the host looks like: read anew for every pass, never remembered.

A part that could not be read is `Unknown`, which is not the same as empty (I4): nothing is created or
deleted on the strength of it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from reconciler.model.vm import NO_NETWORK, USER_NETWORK, Network, Vm

if TYPE_CHECKING:
    # `ps` is quick because it does not load what it does not look at.
    from reconciler.model.changes import Facts
    from reconciler.model.inside import Secret
    from reconciler.model.observed_links import ObservedBridge, ObservedRules, ObservedTap
    from reconciler.model.retention import ObservedCache


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part of the host that could not be observed, and why."""

    reason: str


class Ended(StrEnum):
    """How a VM ended that nobody here had stopped."""

    POWEROFF = "poweroff"
    """The guest switched itself off."""
    REBOOT = "reboot"
    """The guest restarts itself, which ends its VMM and is for us to complete."""
    FAILED = "failed"
    """Killed, crashed, or the host went down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVm:
    """One VM of the inventory, beside what the host shows of it.

    `spec`, `address`, `created` and `booted` are records of what was done; `disk`, `pid` and `started`
    are what is there now.
    """

    name: str
    id: str
    spec: Vm
    mac: str
    address: IPv4Address | None = None
    created: Facts = field(default_factory=dict)
    booted: Facts = field(default_factory=dict)
    """What the last start was told; means something only while `running`."""
    disk: bool
    """Whether the root overlay is there."""
    pid: int | None = None
    forwards: Mapping[str, int] = field(default_factory=dict)
    """Guest port → the loopback port that leads to it, in a user-mode network."""
    created_at: float = 0.0
    started_at: float | None = None
    ready_at: float | None = None
    """When this very boot was first seen ready."""
    halted: str | None = None
    """Why it was stopped on purpose, until it is started again."""
    condemned: str | None = None
    """The desired state (`plan.guard.state_digest`) for which a person approved its removal."""
    generation: int = 0
    """That of the environment when it was made."""
    uptime: float | None = None
    """Seconds since its VMM started, by a clock that neither jumps nor stands still while the host is suspended."""
    shipped: str | None = None
    """Where in the guest its workspace was shipped to."""
    ended: Ended | None = None
    """Set if it was started, was not stopped by us, and does not run, where its restart policy asks for it."""

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def network(self) -> str:
        """What it is on: while it runs, what it was started with, which may no longer be what it is to have."""
        return self.booted.get("network", self.spec.network) if self.running else self.spec.network

    @property
    def bridged(self) -> bool:
        return self.network not in (USER_NETWORK, NO_NETWORK)

    @property
    def lease(self) -> IPv4Address | None:
        """The address that it uses, by the same rule."""
        told = self.booted.get("address") if self.running else None
        return IPv4Address(told) if told else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVolume:
    """A volume's file. `size` in bytes (its length, not what it takes on disk)."""

    vm: str
    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A VMM process with our stamp whose VM is in no inventory."""

    vm_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """One environment's part of the host, keyed by the names of the spec."""

    install: str
    environment: str
    generation: int = 0
    """How often what is asked for has changed; 0 where nothing was ever applied."""
    vms: Mapping[str, ObservedVm] = field(default_factory=dict)
    processes: Unknown | None = None
    """Set when the process table could not be read: every VM's `pid` is then meaningless."""
    networks: Mapping[str, Network] = field(default_factory=dict)
    """The inventory: networks that were made, or were about to be."""
    bridges: Mapping[str, ObservedBridge] | Unknown = field(default_factory=dict)
    taps: Mapping[str, ObservedTap] | Unknown = field(default_factory=dict)
    rules: Mapping[str, ObservedRules] | Unknown = field(default_factory=dict)
    """The packet filter's, by network."""
    images: frozenset[str] | Unknown = frozenset()
    kernels: frozenset[str] | Unknown = frozenset()
    tools: frozenset[str] | Unknown = frozenset()
    """Disks of guest tools, of this banger and of others that shared the cache."""
    volumes: tuple[ObservedVolume, ...] = ()
    sources: Mapping[str, str | Unknown] = field(default_factory=dict)
    """What stands on the host for guests' files: path → digest of its content."""
    secrets: Mapping[Secret, str | Unknown] = field(default_factory=dict)
    """Keyed hashes of their values."""
    strays: tuple[Stray, ...] = ()
    corpses: tuple[str, ...] = ()
    """Staging folders whose makers are gone."""
    cache: ObservedCache | Unknown | None = None
    """None: nobody looked, since no policy asks."""
