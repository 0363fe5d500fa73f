"""What the rest of banger may ask of a virtual machine monitor, and what it must say about the VM.

A `Boot` describes one start completely. `check` compares it with what a backend declares it can do, before
anything is touched, so that a VM that cannot run fails with a sentence and not half-way.
"""

from __future__ import annotations

import os
import re
import typing
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path

from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Progress
from reconciler.lib.units import MIB, human_size
from reconciler.model.vm import Protocol

# VIRTIO_BLK_ID_BYTES: virtio 1.2, section 5.2.6.
SERIAL_BYTES = 20
# COMMAND_LINE_SIZE of Linux on x86 (arch/x86/include/asm/setup.h) is 2048 with its final NUL; what is longer is cut
# off silently. The rest is for the backend's own words.
CMDLINE_BYTES = 1792

LOOPBACK = IPv4Address("127.0.0.1")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SERIAL = re.compile(r"[A-Za-z0-9_.-]+")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # the second digit even: unicast (IEEE 802)
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ, netdevice(7)


class AcceleratorKind(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def emulated(self) -> bool:
        return self is AcceleratorKind.TCG


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The choice, and each consideration that led to it, as sentences.

    `tsc_khz` is the rate of the guest's time stamp counter where the guest has to be told (`tsc.host_tsc_khz`).
    """

    kind: AcceleratorKind
    reasons: tuple[str, ...] = ()
    tsc_khz: int | None = None


class StopOutcome(StrEnum):
    """How a VMM came to its end."""

    POWERDOWN = "powerdown"
    SYNCED_KILL = "synced-kill"
    KILLED = "killed"
    ALREADY_GONE = "already-gone"

    @property
    def lossless(self) -> bool:
        """Whether the guest's writes are known to be on its disks."""
        return self in (StopOutcome.POWERDOWN, StopOutcome.SYNCED_KILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A raw image; the guest finds it as /dev/disk/by-id/virtio-<serial>. `serial` is at most 20 bytes."""

    serial: str
    path: Path
    readonly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port of the host that leads to a port of the guest. User-mode networks only.

    `address` is the host's own; 0.0.0.0 stands for all of them.
    """

    host_port: int
    guest_port: int
    address: IPv4Address = LOOPBACK
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """The network card. `tap` names an existing tap device; None is the VMM's own user-mode network."""

    mac: str
    tap: str | None = None
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One start of one VM.

    Parameters
    ----------
    install, vm_id: the stamp that the process carries.
    label: what people call the VM, for messages.
    memory: bytes, a whole number of MiB.
    cmdline: added to the kernel command line; console and reboot behaviour are the backend's business.
    disks: in the order in which the guest sees them.
    """

    install: str
    vm_id: str
    label: str
    cpus: int
    memory: int
    vmlinux: Path
    initrd: Path
    cmdline: str
    disks: tuple[Disk, ...]
    nic: Nic | None
    paths: VmPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do. Sizes in bytes; `live` names the fields of a VM that it changes while the VM runs."""

    max_disks: int
    max_cpus: int
    min_memory: int
    user_network: bool
    tap_network: bool
    accelerators: frozenset[AcceleratorKind]
    live: frozenset[str] = frozenset()


class Backend(typing.Protocol):
    """A technology that runs VMs. Every method may be called from any thread, and again after a crash."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def start(self, boot: Boot, accelerator: Accelerator) -> Vmm:
        """Starts the VM, or returns the VMM that runs it already. The VMM outlives this process."""

    def stop(self, paths: VmPaths, vmm: Vmm, deadline: float, progress: Progress) -> StopOutcome:
        """Ends the VM so that no write is lost; `deadline` in seconds is what the guest gets to shut down."""

    def kill(self, vmm: Vmm) -> None:
        """Ends the process at once, as a power cut would."""

    def forward(self, paths: VmPaths, wanted: frozenset[Forward]) -> None:
        """Makes these be the forwards of a running VM on the user-mode network. Connections go on.

        Raises BangerError; retryable if a port of the host is taken, which it names.
        """


def check(boot: Boot, capabilities: Capabilities) -> None:
    """Raises BangerError, which lists everything wrong, if this VM cannot be started. Changes nothing."""
    problems = [*_shape(boot, capabilities), *_disks(boot, capabilities), *_nic(boot, capabilities), *_files(boot)]
    if problems:
        raise BangerError(f"VM {boot.label} cannot be started: {'; '.join(problems)}")


def _shape(boot: Boot, can: Capabilities) -> list[str]:
    problems = [f"{name!r} is not a valid id" for name in (boot.install, boot.vm_id) if not _ID.fullmatch(name)]
    if not 1 <= boot.cpus <= can.max_cpus:
        problems.append(f"{boot.cpus} CPUs asked for, 1 to {can.max_cpus} are possible")
    if boot.memory < can.min_memory:
        problems.append(f"{human_size(boot.memory)} of memory, at least {human_size(can.min_memory)} are needed")
    if boot.memory % MIB:
        problems.append(f"memory of {boot.memory} bytes is not a whole number of MiB")
    if not boot.cmdline.isprintable():
        problems.append("the kernel command line has control characters")
    if len(boot.cmdline.encode()) > CMDLINE_BYTES:
        problems.append(f"the kernel command line is longer than {CMDLINE_BYTES} bytes")
    return problems


def _disks(boot: Boot, can: Capabilities) -> list[str]:
    problems = []
    if len(boot.disks) > can.max_disks:
        problems.append(f"{len(boot.disks)} disks asked for, {can.max_disks} are possible")
    serials = [disk.serial for disk in boot.disks]
    for serial in serials:
        if not _SERIAL.fullmatch(serial) or len(serial) > SERIAL_BYTES:
            problems.append(f"disk serial {serial!r} is not 1 to {SERIAL_BYTES} letters, digits, '_', '.' or '-'")
    problems += [
        f"disk serial {serial!r} is used twice" for serial in sorted({s for s in serials if serials.count(s) > 1})
    ]
    return problems


def _nic(boot: Boot, can: Capabilities) -> list[str]:
    nic = boot.nic
    if nic is None:
        return []
    problems = []
    if not _MAC.fullmatch(nic.mac):
        problems.append(f"{nic.mac!r} is not a unicast MAC address in lower case")
    if nic.tap is None:
        if not can.user_network:
            problems.append("this backend has no user-mode network")
    elif not can.tap_network:
        problems.append("this backend has no tap network")
    elif not _INTERFACE.fullmatch(nic.tap):
        problems.append(f"{nic.tap!r} is not an interface name")
    elif nic.forwards:
        problems.append("port forwards need the user-mode network")
    for forward in nic.forwards:
        if not (1 <= forward.host_port <= 65535 and 1 <= forward.guest_port <= 65535):
            problems.append(f"forward {forward.host_port} to {forward.guest_port} is no pair of ports")
    return problems


def _files(boot: Boot) -> list[str]:
    problems = []
    for what, path, write in (
        ("kernel", boot.vmlinux, False),
        ("initramfs", boot.initrd, False),
        *((f"disk {disk.serial}", disk.path, not disk.readonly) for disk in boot.disks),
    ):
        if not path.is_absolute():
            problems.append(f"{what} {path} is not an absolute path")
        elif "\n" in str(path):
            problems.append(f"{what} {str(path)!r} has a line break in its name")
        elif not path.is_file():
            problems.append(f"{what} {path} does not exist")
        elif not os.access(path, os.R_OK | (os.W_OK if write else 0)):
            problems.append(f"{what} {path} may not be {'written' if write else 'read'} by this user")
    return problems
