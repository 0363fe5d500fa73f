"""Reading a file that somebody may be writing: what was read, and whether it can be whole.

Half of the byte prefixes of a specification are valid ones with fewer VMs, so a save in progress must not be taken for
a finished one. The kernel knows: a read lease (fcntl(2), F_SETLEASE) is refused while anybody has the file open for
writing, and a writer that comes later waits until it is given back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 1 << 20
MOUNTS = Path("/proc/self/mountinfo")
# These refuse a lease with EAGAIN when the server has not given them one, whoever writes or not (fs/nfs/nfs4proc.c,
# fs/smb/client/cifsfs.c). Others that know no leases say EINVAL.
_REMOTE = {"nfs", "nfs4", "cifs", "smb3"}


class Signature(NamedTuple):
    """What stat(2) says about a content. `changed` cannot be set back by anybody, unlike `modified`; nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A content that stood still while it was read. `proven`: nobody had the file open for writing."""

    signature: Signature
    data: bytes
    digest: str
    proven: bool


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody is writing."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no content, and this is why."""

    problem: str
    missing: bool = False


def signature(path: Path) -> Signature | None:
    """What is known of the file behind a path without opening it; None if there is none."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def read(path: Path) -> Whole | Busy | Failed:
    """Reads a file, of 1 MiB at most. Never blocks, raises or waits, whatever is there."""
    try:
        # First without opening: of a fifo or a device, that has effects.
        if unfit := _unfit(path.stat()):
            return unfit
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Failed(_missing(path), missing=True)
    except OSError as problem:
        return Failed(f"cannot be read: {problem.strerror}")
    try:
        return _read(fd)
    except OSError as problem:
        return Failed(f"cannot be read: {problem.strerror}")
    finally:
        os.close(fd)


def _read(fd: int) -> Whole | Busy | Failed:
    before = os.fstat(fd)
    if unfit := _unfit(before):
        return unfit
    proven = _lease(fd, before.st_dev)
    if proven is None:
        return Busy()
    try:
        return _content(fd, before, proven)
    finally:
        if proven:
            # Not left to the close: a child that is just being started has the descriptor, too.
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _content(fd: int, before: os.stat_result, proven: bool) -> Whole | Busy | Failed:
    data = b""
    while len(data) <= MAX_BYTES and (more := os.read(fd, MAX_BYTES + 1 - len(data))):
        data += more
    after = os.fstat(fd)
    if unfit := _unfit(after):
        return unfit
    if _signature(before) != _signature(after) or len(data) != after.st_size:
        return Busy()
    return Whole(_signature(after), data, hashlib.sha256(data).hexdigest(), proven)


def _lease(fd: int, device: int) -> bool | None:
    """Takes a read lease: True, or False where there are none, or None if it is refused, because somebody writes.

    Another user's file allows none (EACCES) without CAP_LEASE (capabilities(7)).
    """
    try:
        # A writer that comes is announced to the holder, by default with SIGIO, which kills; SIGURG does nothing.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return False if _filesystem(device) in _REMOTE else None
    except OSError:
        return False
    return True


def _filesystem(device: int) -> str | None:
    """The type of the filesystem with that device number, by proc_pid_mountinfo(5)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return None


def _unfit(found: os.stat_result) -> Failed | None:
    if stat.S_ISDIR(found.st_mode):
        return Failed("is a directory")
    if not stat.S_ISREG(found.st_mode):
        return Failed("is not a regular file")
    if found.st_size > MAX_BYTES:
        return Failed("is larger than 1 MiB")
    return None


def _missing(path: Path) -> str:
    try:
        return f"is a symbolic link to {path.readlink()}, which is missing"
    except OSError:
        return "is missing"


def _signature(found: os.stat_result) -> Signature:
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
