"""What QEMU changes while its VM runs: memory, the size of disks, the network's link, forwarded ports.

Each function may be repeated, and finishes what one that was killed half-way has begun. None holds the monitor,
which serves one client at a time, for longer than a visit: a busy one is a retryable error (QmpError).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from reconciler.drivers.vmm import facts, probe
from reconciler.drivers.vmm.backend import Forward
from reconciler.drivers.vmm.cmdline import BALLOON, NETDEV
from reconciler.drivers.vmm.disks import BLOCK, filesystem_size
from reconciler.drivers.vmm.facts import QMP_SECONDS, Memory, list_forwards
from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.qmp import Qmp, QmpCommandError, QmpError
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Progress
from reconciler.lib.units import MIB, human_size

__all__ = [
    "MIN_MEMORY",
    "add_forward",
    "list_forwards",
    "remove_forward",
    "resize_disk",
    "set_forwards",
    "set_link",
    "set_memory",
    "who_has",
]

MIN_MEMORY = 96 * MIB
"""Bytes. No guest is brought below this, whatever it says that it needs."""
GUEST_SECONDS = 30.0
"""How long a guest gets to let its file system grow."""

_TOLERANCE = MIB
_SPARE = 32 * MIB
"""Bytes that a guest keeps beyond what it has in use, so that it can go on working."""
_LOOK_SECONDS = 0.2
_STATISTICS_SECONDS = 2.0
_UNKNOWN = (1 << 64) - 1
_BALLOON_PATH = f"/machine/peripheral/{BALLOON}"


def set_memory(paths: VmPaths, vmm: Vmm, target: int, deadline: float, progress: Progress) -> None:
    """Gives the guest `target` bytes, by its balloon; returns when it has them (virtio 1.2, section 5.5).

    Its kernel keeps counting the whole memory: what the balloon holds shows as used. A guest that runs out of memory
    takes some of it back, so the size can change again later.

    Parameters
    ----------
    target: from MIN_MEMORY, and from what the guest has in use, to what the VM was started with.
    deadline: seconds that the guest gets.

    Raises BangerError. If the guest does not get there in time, what was asked of it stands: it goes on trying, and
    neither size is put back.
    """
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        began = _memory(qmp)
        if target > began.boot:
            raise BangerError(
                f"the VM was started with {human_size(began.boot)} of memory and cannot get {human_size(target)} "
                "while it runs",
                hint="restart it",
            )
        if target < MIN_MEMORY:
            raise BangerError(f"a guest needs at least {human_size(MIN_MEMORY)}, not {human_size(target)}")
    # Not only for one that has to shrink: a size that was asked for earlier may still be on its way.
    if target < began.now - _TOLERANCE:
        _require_room(paths, began, target)
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        qmp.execute("balloon", value=target)

    now = began.now

    def arrived() -> bool:
        nonlocal now
        try:
            with Qmp(paths.qmp, QMP_SECONDS) as qmp:
                now = _memory(qmp).now
        except QmpError:
            return False  # somebody else's turn
        distance = abs(began.now - target)
        done = 1.0 if distance <= _TOLERANCE else 1 - abs(now - target) / distance
        progress.update(min(1.0, max(0.0, done)), f"the guest has {human_size(now)} of memory")
        return abs(now - target) <= _TOLERANCE

    if not _until(arrived, vmm, deadline):
        raise BangerError(
            f"the guest has {human_size(now)} of memory after {deadline:g} s, not {human_size(target)}",
            hint="it needs its memory, or still boots, or lacks the virtio_balloon driver; what was asked of it stands",
            error_class=ErrorClass.RETRYABLE,
        )


def resize_disk(paths: VmPaths, vmm: Vmm, serial: str, size: int, deadline: float = GUEST_SECONDS) -> bool:
    """Grows a disk and lets the guest grow the ext4 file system in it (drivers.guest.units).

    Parameters
    ----------
    serial: the disk's, as in its `Boot`. size: in bytes, a multiple of disks.BLOCK.
    deadline: seconds that the guest gets for its part.

    Returns whether the file system has grown too. Where it has not, the guest could not or was too slow; then the host
    does it before the next start (disks.grow_ext4), and nothing needs to be done until then.

    Raises BangerError, also for a smaller size and for a disk that the VM has not.
    """
    if size % BLOCK:
        raise BangerError(f"a disk of {size} bytes: it must be in steps of {BLOCK} bytes")
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        disk = facts.disks(qmp).get(serial)
        if disk is None or disk.readonly:
            raise BangerError(f"the VM has no disk {serial} that could grow", hint="restart it")
        if size < disk.size:
            raise BangerError(
                f"disk {serial} is {human_size(disk.size)} and cannot become {human_size(size)}",
                hint="a disk only grows; make a new volume and copy",
            )
        if size > disk.size:
            # Makes the file longer too, which stays sparse, and tells the guest's driver.
            qmp.execute("block_resize", device=disk.drive, size=size)
    return _until(lambda: _filled(disk.path, size), vmm, deadline)


def set_link(paths: VmPaths, up: bool) -> None:
    """Plugs the network cable in, or pulls it. The guest sees its carrier change; its addresses stay. Raises BangerError."""
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        try:
            qmp.execute("set_link", name=NETDEV, up=up)
        except QmpCommandError as problem:
            if problem.reason != "DeviceNotFound":
                raise
            raise BangerError("the VM has no network card") from None


def add_forward(paths: VmPaths, forward: Forward) -> None:
    """Lets a port of the host lead to a port of the guest; one that does so already stays untouched.

    A forward of this VM from the same port of the host to another one of the guest gives way. Connections through it
    go on.

    Raises BangerError: retryable if the host's port is taken, terminal if the VM has no user-mode network.
    """
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        present = _forwards(qmp)
        if forward in present:
            return
        for other in present:
            if _listener(other) == _listener(forward):
                qmp.monitor(f"hostfwd_remove {NETDEV} {_listener(other)}")
        said = qmp.monitor(f"hostfwd_add {NETDEV} {_listener(forward)}-:{forward.guest_port}")
        # By what it did, not by its words: the human monitor promises none.
        if forward in _forwards(qmp):
            return
    raise BangerError(
        f"port {forward.host_port} of {forward.address} cannot be forwarded: {' '.join(said.split()) or 'QEMU does not'}",
        hint=who_has(forward),
        error_class=ErrorClass.RETRYABLE,
    )


def remove_forward(paths: VmPaths, forward: Forward) -> None:
    """Ends a forward; one that is not there is no error. Connections through it go on. Raises BangerError."""
    with Qmp(paths.qmp, QMP_SECONDS) as qmp:
        if forward not in _forwards(qmp):
            return
        said = qmp.monitor(f"hostfwd_remove {NETDEV} {_listener(forward)}")
        if forward not in _forwards(qmp):
            return
    raise BangerError(
        f"the forward of port {forward.host_port} of {forward.address} cannot be removed: {' '.join(said.split())}",
        error_class=ErrorClass.RETRYABLE,
    )


def set_forwards(paths: VmPaths, wanted: Collection[Forward]) -> None:
    """Makes these the VM's only forwards. Raises BangerError as `add_forward` does; what could be done is done then."""
    for forward in (list_forwards(paths) or frozenset()) - frozenset(wanted):
        remove_forward(paths, forward)
    failed: BangerError | None = None
    for forward in sorted(wanted, key=lambda forward: (forward.host_port, forward.protocol, forward.address)):
        try:
            add_forward(paths, forward)
        except BangerError as problem:
            failed = failed or problem
    if failed is not None:
        raise failed


def who_has(forward: Forward) -> str:
    """The command that shows who has the port of the host."""
    return f"`ss -lnp --{forward.protocol} 'sport = :{forward.host_port}'` shows who has it"


def _memory(qmp: Qmp) -> Memory:
    memory = facts.memory(qmp)
    if memory is None:
        raise BangerError("the VM was started without a balloon: its memory is fixed", hint="restart it")
    return memory


def _require_room(paths: VmPaths, memory: Memory, target: int) -> None:
    """Raises BangerError if the guest says that it has more in use than it would keep. A silent guest says nothing."""
    available = _available(paths)
    if available is None:
        return
    used = max(0, memory.now - available)
    if used + _SPARE > target:
        raise BangerError(
            f"the guest has {human_size(used)} of its memory in use: it needs at least {human_size(used + _SPARE)}, "
            f"not {human_size(target)}",
            hint="end what needs the memory, or ask for more",
            error_class=ErrorClass.RETRYABLE,
        )


def _available(paths: VmPaths) -> int | None:
    """Bytes that the guest could use or give back, by its own reckoning (QEMU: docs/virtio-balloon-stats.txt).

    The guest is asked only here: regular polling would wake it for nothing.
    """
    asked = int(time.time())
    interval = {"path": _BALLOON_PATH, "property": "guest-stats-polling-interval"}
    with Qmp(paths.qmp, _STATISTICS_SECONDS + QMP_SECONDS) as qmp:
        qmp.execute("qom-set", **interval, value=1)
        try:
            end = time.monotonic() + _STATISTICS_SECONDS
            while time.monotonic() < end and not cancel.cancelled():
                answer = qmp.execute("qom-get", path=_BALLOON_PATH, property="guest-stats")
                if answer["last-update"] >= asked:
                    available = int(answer["stats"]["stat-available-memory"])
                    return None if available in (_UNKNOWN, -1) else available
                cancel.pause(_LOOK_SECONDS / 4)
        finally:
            qmp.execute("qom-set", **interval, value=0)
    return None


def _filled(image: Path, size: int) -> bool:
    """Whether the file system reaches to the end of its disk; resize2fs leaves less than a block.

    The guest's kernel writes the superblock in its place before it says that a file system has grown (Linux:
    fs/ext4/ioctl.c, ext4_ioctl_group_add, flushes the journal).
    """
    try:
        return size - filesystem_size(image) < BLOCK
    except OSError as problem:
        raise BangerError(f"cannot read {image}: {problem.strerror}") from None


def _forwards(qmp: Qmp) -> frozenset[Forward]:
    present = facts.forwards(qmp)
    if present is None:
        raise BangerError("the VM has no user-mode network, which forwarded ports need")
    return present


def _listener(forward: Forward) -> str:
    return f"{forward.protocol}:{forward.address}:{forward.host_port}"


def _until(done: Callable[[], bool], vmm: Vmm, seconds: float) -> bool:
    """Looks until it is done or the time is over. Raises BangerError if the VMM ends, CancelledError if banger does."""
    end = time.monotonic() + seconds
    while not done():
        if not probe.alive(vmm):
            raise BangerError("the VM ended meanwhile", error_class=ErrorClass.RETRYABLE)
        if cancel.cancelled():
            raise CancelledError
        if time.monotonic() >= end:
            return False
        cancel.pause(_LOOK_SECONDS)
    return True
