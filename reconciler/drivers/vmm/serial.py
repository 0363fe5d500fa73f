"""The guest's serial line, for one who talks on it at a time.

QEMU serves one client of its socket; a second one is not refused, but hears nothing until the first has gone. So whoever
connects holds a lock, which the kernel knows the holder of (fcntl(2), F_GETLK) and lets go however that process ends. It
comes before a guest's disks are lost: `take_over` has the holder told to go.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.drivers.vmm import probe, sockets
from reconciler.drivers.vmm.cmdline import SERIAL
from reconciler.drivers.vmm.qmp import Qmp
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths

_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_FLOCK = "hhqqi4x"  # struct flock of 64 bits: type, whence, start, length, pid (fcntl(2))
_IDLE = "disconnected:"  # how QEMU names a socket without a client (chardev/char-socket.c)


class LineTakenError(BangerError):
    """Somebody else talks on the line. `pid` is the process, None for one that is not of banger."""

    def __init__(self, cause: str, pid: int | None, hint: str) -> None:
        super().__init__(cause, hint=hint)
        self.pid = pid


@contextmanager
def attached(paths: VmPaths, label: str) -> Iterator[socket.socket]:
    """The line, for as long as the block lasts. `label` is what people call the VM.

    Raises LineTakenError, QmpError where the VMM does not answer, and OSError.
    """
    lock = _open(paths)
    try:
        if not _hold(lock):
            pid = holder(lock)
            raise LineTakenError(
                f"somebody else has the console of vm {label}, in process {pid or 'unknown'}",
                pid,
                "one can have it at a time: detach there first; `banger logs -f` follows along beside it",
            )
        with Qmp(paths.qmp, _SECONDS) as qmp:
            names = [
                str(found.get("filename")) for found in qmp.execute("query-chardev") if found.get("label") == SERIAL
            ]
        if names and not names[0].startswith(_IDLE):
            raise LineTakenError(
                f"a program that is not banger has the console of vm {label}",
                None,
                f"`fuser {paths.serial}` or `ss -xp` may show which; `banger logs -f` follows along beside it",
            )
        with sockets.connect(paths.serial, _SECONDS) as connection:
            connection.settimeout(None)
            yield connection
    finally:
        os.close(lock)


@contextmanager
def take_over(paths: VmPaths, seconds: float) -> Iterator[socket.socket]:
    """The line, from whoever of banger has it: told to go by SIGTERM, upon which a console restores its terminal.

    One who does not go within `seconds` keeps it, and what is said on the connection is heard when it is gone. Raises
    OSError.
    """
    lock = _open(paths)
    try:
        end = time.monotonic() + seconds
        told: set[int] = set()
        while not _hold(lock) and time.monotonic() < end:
            pid = holder(lock)
            if pid and pid not in told:
                told.add(pid)
                _tell(pid, lock)
            time.sleep(_LOOK_SECONDS)
        with sockets.connect(paths.serial, seconds) as line:
            yield line
    finally:
        os.close(lock)


def holder(lock: int) -> int | None:
    """The process that has the line. None if nobody does, or one that cannot be seen from here."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def _open(paths: VmPaths) -> int:
    """The lock file. One that root makes belongs to whose VM it is, who may need the line next."""
    lock = os.open(paths.serial_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        whose = paths.serial_lock.parent.stat()
        os.fchown(lock, whose.st_uid, whose.st_gid)
    return lock


def _hold(lock: int) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # either, by POSIX
        return False
    return True


def _tell(pid: int, lock: int) -> None:
    """Ends a process that holds the lock, and none that has got its number since."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if holder(lock) == pid:
            probe.send(fd, signal.SIGTERM)
            # One that was stopped hears nothing before it goes on.
            probe.send(fd, signal.SIGCONT)
    except PermissionError:
        pass  # another user's, who keeps it
    finally:
        os.close(fd)
