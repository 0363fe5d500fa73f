"""What a running VMM says about itself: memory, disks and forwards as they are now. Read-only.

Names and units are QMP's (QEMU: qapi/machine.json, qapi/block-core.json; net/slirp.c for the forwards).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from reconciler.drivers.vmm.backend import Forward
from reconciler.drivers.vmm.qmp import Qmp, QmpCommandError
from reconciler.lib.paths import VmPaths
from reconciler.model.vm import Protocol

QMP_SECONDS = 3.0
"""What one visit to the monitor may take, waiting for other clients included."""

# "TCP[HOST_FORWARD]  14       127.0.0.1  2222       10.0.2.15    22     0     0"; a wildcard address is a `*`
# (libslirp: src/misc.c, slirp_connection_info).
_FORWARD = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+-?\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """In bytes: what the VM was started with, and what its guest has now."""

    boot: int
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDisk:
    """A disk as the VMM has it open. `drive` is QEMU's name for it, `size` in bytes."""

    drive: str
    path: Path
    size: int
    readonly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it, read in one visit.

    Parameters
    ----------
    memory: None for a VM without a balloon, whose memory is fixed.
    disks: by serial.
    forwards: of the user-mode network; None if the VM has none.
    """

    memory: Memory | None
    disks: Mapping[str, OpenDisk]
    forwards: frozenset[Forward] | None


def read(paths: VmPaths) -> Facts:
    """Asks the VMM. Raises QmpError (retryable) if it is gone, hung, or another client has its monitor."""
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        return Facts(memory=memory(qmp), disks=disks(qmp), forwards=forwards(qmp))


def list_forwards(paths: VmPaths) -> frozenset[Forward] | None:
    """The forwards of the user-mode network; None if the VM has no such network. Raises QmpError."""
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        return forwards(qmp)


def memory(qmp: Qmp) -> Memory | None:
    """None for a VM without a balloon."""
    try:
        now = qmp.execute("query-balloon")["actual"]
    except QmpCommandError as problem:
        if problem.reason == "DeviceNotActive":
            return None
        raise
    return Memory(boot=int(qmp.execute("query-memory-size-summary")["base-memory"]), now=int(now))


def disks(qmp: Qmp) -> Mapping[str, OpenDisk]:
    """By serial."""
    found = {}
    for drive in qmp.execute("query-block"):
        if "qdev" not in drive or "inserted" not in drive:
            continue
        # The device, not the drive, has the serial.
        serial = qmp.execute("qom-get", path=drive["qdev"], property="serial")
        inserted = drive["inserted"]
        found[str(serial)] = OpenDisk(
            drive=str(drive["device"]),
            path=Path(inserted["file"]),
            size=int(inserted["image"]["virtual-size"]),
            readonly=bool(inserted["ro"]),
        )
    return found


def forwards(qmp: Qmp) -> frozenset[Forward] | None:
    """None for a VM without a user-mode network."""
    return parse_forwards(qmp.monitor("info usernet"))


def parse_forwards(text: str) -> frozenset[Forward] | None:
    """What `info usernet` prints. Lines of connections, of other protocols and of other shapes are passed over."""
    if not text.strip():
        return None
    found = set()
    for protocol, address, host_port, guest_port in _FORWARD.findall(text):
        try:
            listening = IPv4Address(0 if address == "*" else address)
        except AddressValueError:
            continue
        forward = Forward(
            address=listening,
            host_port=int(host_port),
            guest_port=int(guest_port),
            protocol=Protocol(protocol.lower()),
        )
        found.add(forward)
    return frozenset(found)
