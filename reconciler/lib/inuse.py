"""Who uses an entry of a cache, while it is used and afterwards: kernel locks and times.

Whoever works with an entry holds a shared lock (flock(2)) on the entry itself, which the kernel lets go however the
holder ends. Whoever removes entries takes the lock for itself alone, renames the entry aside while it has it, and so
removes nothing that somebody works with. No file is written, so that all of this works on a full disk.

When an entry was used last is the time of modification of its folder, which nothing else changes once the entry is
published; of an entry that is one file it is the time of access (inode(7)), since the other one says when it was made.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def in_use(*entries: Path) -> Iterator[None]:
    """Keeps entries from being removed for as long as the block lasts, and marks them as used.

    Raises FileNotFoundError if one of them is not there, OSError if it cannot be opened.
    """
    with ExitStack() as stack:
        for entry in entries:
            stack.callback(os.close, _shared(entry))
            mark_used(entry)
        yield


def mark_used(*entries: Path, at: float | None = None) -> None:
    """Notes that entries were used now, or `at` so many seconds since the epoch. One that is gone, or is another user's, is left as it is."""
    used = time.time_ns() if at is None else int(at * 1e9)
    for entry in entries:
        try:
            status = entry.stat()
            os.utime(entry, ns=(used, used) if stat.S_ISDIR(status.st_mode) else (used, status.st_mtime_ns))
        except OSError:
            continue


def last_use(status: os.stat_result) -> float:
    """When an entry was used last, in seconds since the epoch."""
    return status.st_mtime if stat.S_ISDIR(status.st_mode) else max(status.st_atime, status.st_mtime)


@contextmanager
def unused(entry: Path) -> Iterator[bool]:
    """Whether nobody works with an entry; if so, nobody begins to for as long as the block lasts. False where it is gone."""
    try:
        lock = os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _same(lock, entry)
    finally:
        os.close(lock)


def _shared(entry: Path) -> int:
    """An open file that holds the shared lock on what is at `entry` now, and not on what was moved away from there."""
    while True:
        lock = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _same(lock, entry):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _same(lock: int, entry: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), entry.stat())
    except FileNotFoundError:
        return False
