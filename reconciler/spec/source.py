"""Reads the bytes of a file without ever blocking, following a device, or taking more than the limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.lib.units import MIB
from reconciler.spec.problems import Problem, SpecError

MAX_BYTES = MIB

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def read(path: Path) -> bytes:
    """The bytes of a regular file of at most 1 MiB. SpecError says why there are none."""
    try:
        # Asked before opening, because opening a device can act (a watchdog starts, a tape rewinds) ...
        _require_regular(path, path.stat())
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123  # of a descriptor, not of a path
            # ... and again afterwards, because the name may stand for something else by now.
            _require_regular(path, os.fstat(fd))
            return _read_all(path, file.fileno())
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file", "write one with `banger init`") from None
    except PermissionError:
        raise _unreadable(path, "permission denied", "make the file and its directories readable to you") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise _unreadable(path, f"cannot be read: {reason}") from None


def _read_all(path: Path, fd: int) -> bytes:
    chunks = []
    size = 0
    # The size that stat gives is a promise that procfs does not keep and that a growing file breaks.
    while chunk := os.read(fd, MAX_BYTES + 1 - size):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise _too_large(path)
    return b"".join(chunks)


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise _unreadable(path, f"is {kind}", "name a regular file")
    if status.st_size > MAX_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> SpecError:
    return _unreadable(path, "is larger than 1 MiB", "split it into several environments, one file each")


def _unreadable(path: Path, message: str, hint: str = "") -> SpecError:
    return SpecError([Problem(str(path), 0, 0, "", message, hint)])
