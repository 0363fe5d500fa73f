"""What an edited field costs, and the facts that two states are compared by.

A VM is described by two sets of facts: what it was created with (a difference needs a new root disk) and
what its VMM was started with (a difference needs a restart). Comparing facts, not files, is what makes
comments, key order and written-out defaults cost nothing. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from reconciler.lib.units import format_size, parse_size
from reconciler.model.artifacts import short_digest
from reconciler.model.vm import USER_NETWORK, Network, Publication, Vm, Volume


class ChangeClass(StrEnum):
    """The price of a change, cheapest first."""

    NONE = "none"
    LIVE = "live"
    RESTART = "restart"
    RECREATE = "recreate"
    REFUSED = "refused"

    @property
    def disruptive(self) -> bool:
        return self in (ChangeClass.RESTART, ChangeClass.RECREATE)


# The same words as `x-change` in schemas/banger.schema.json; a test holds the two together.
VM_FIELDS: Mapping[str, ChangeClass] = {
    "image": ChangeClass.RECREATE,
    "cpus": ChangeClass.RESTART,
    "memory": ChangeClass.RESTART,
    "disk": ChangeClass.RESTART,
    "network": ChangeClass.RESTART,
    "address": ChangeClass.RESTART,
    "backend": ChangeClass.RESTART,
    "volumes": ChangeClass.RESTART,
    "ports": ChangeClass.LIVE,
    "files": ChangeClass.LIVE,
    "env": ChangeClass.LIVE,
    "secrets": ChangeClass.LIVE,
    "provision": ChangeClass.LIVE,
    "ready": ChangeClass.NONE,
    "protect": ChangeClass.NONE,
    "state": ChangeClass.LIVE,
    "restart": ChangeClass.NONE,
    "dependsOn": ChangeClass.NONE,
    "onChange": ChangeClass.NONE,
    "ttl": ChangeClass.NONE,
    "user": ChangeClass.NONE,
    "workspace": ChangeClass.LIVE,
}

LIVE_FACTS = frozenset({"ports", "files", "env", "secrets", "provision"})
"""What a VMM or its guest was told that it can be told anew while it runs."""

Facts = Mapping[str, str]
_LABELLED = re.compile(r"\S+ \(([0-9a-f]{16})\)")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what is and what should be."""

    field: str
    old: str
    new: str
    change_class: ChangeClass

    def __str__(self) -> str:
        return f"{self.field}: {self.old or 'unset'} → {self.new or 'unset'} ({self.change_class})"


def spec_key(field: str) -> str:
    """How the file spells a field of the model: `depends_on` is `dependsOn` there. What it lacks keeps its name."""
    first, *rest = field.split("_")
    key = first + "".join(part.capitalize() for part in rest)
    return key if key in VM_FIELDS else field


def creation_facts(vm: Vm) -> dict[str, str]:
    """What the root disk of a VM is tied to."""
    digest = f"@{short_digest(vm.image_digest)}" if vm.image_digest else ""
    return {"image": f"{vm.image}{digest} ({vm.image_id})"}


def boot_facts(vm: Vm, network: Network | None, address: IPv4Address | None) -> dict[str, str]:
    """What a running VMM and its guest were told at their start."""
    facts = {
        "cpus": str(vm.cpus),
        "memory": format_size(vm.memory),
        "disk": format_size(vm.disk),
        "kernel": f"{vm.kernel} ({vm.kernel_id})",
        "network": vm.network,
        "backend": vm.backend.value,
        "address": str(address or ""),
        # A port to wait for is forwarded by a user-mode network, so the VMM must know it.
        "ready.port": str(vm.ready.port or "") if not vm.bridged else "",
    }
    if vm.network == USER_NETWORK and vm.ports:
        facts["ports"] = published(vm.ports)  # else they are the packet filter's, of which the VMM knows nothing
    if network is not None:
        facts["cidr"] = str(network.cidr)
        facts["mtu"] = str(network.mtu)
        # Left to banger, they follow from `dns`, `nat` and the host's own, and none of that is worth a restart.
        given = network.nameservers
        facts["nameservers"] = str(network.gateway) if given is None else " ".join(map(str, given))
        if network.cidr6 is not None:
            facts["cidr6"] = str(network.cidr6)
    for volume in vm.volumes:
        facts[f"volumes.{volume.name}"] = f"{format_size(volume.size)} at {volume.mount}"
    return facts


def published(ports: Iterable[Publication]) -> str:
    """Publications as a fact."""
    return " ".join(map(str, ports))


def restarts(old: Facts, new: Facts) -> list[Change]:
    """The differences of two sets of boot facts that need a restart."""
    return [change for change in compare(old, new, ChangeClass.RESTART) if change.field not in LIVE_FACTS]


def _identity_part(value: str) -> str:
    """A labelled identity counts by the identity: renaming an image is no change."""
    match = _LABELLED.fullmatch(value)
    return match[1] if match else value


def compare(old: Facts, new: Facts, change_class: ChangeClass) -> list[Change]:
    """The differences of two sets of facts, sorted by field."""
    if old == new:
        return []
    return [
        Change(field, old.get(field, ""), new.get(field, ""), change_class)
        for field in sorted({*old, *new})
        if _identity_part(old.get(field, "")) != _identity_part(new.get(field, ""))
    ]


def refusals(old: Vm, new: Vm, sizes: Mapping[str, int], booted: Facts | None = None) -> list[Change]:
    """What no plan does, because data would be lost: shrinking a disk or a volume.

    Parameters
    ----------
    sizes: bytes of the volumes that are there, by name. One that has no file counts as it was asked for last.
    booted: what the last start was told. A disk that was to grow with the next one has not grown yet.
    """
    found = []
    told = (booted or {}).get("disk")
    disk = parse_size(told) if told else old.disk
    if new.disk < disk and new.image_id == old.image_id:
        found.append(Change("disk", format_size(disk), format_size(new.disk), ChangeClass.REFUSED))
    recorded = {volume.name: volume.size for volume in old.volumes}
    return found + shrunk(new.volumes, {**recorded, **sizes})


def shrunk(volumes: Iterable[Volume], sizes: Mapping[str, int]) -> list[Change]:
    """The volumes that would become smaller; also those that lasted longer than their VM."""
    return [
        Change(f"volumes.{v.name}.size", format_size(sizes[v.name]), format_size(v.size), ChangeClass.REFUSED)
        for v in volumes
        if v.size < sizes.get(v.name, 0)
    ]
