"""A log that another program appends to: kept small while it grows, with a record of when what was written.

What is old is punched out of the file (fallocate(2), FALLOC_FL_PUNCH_HOLE). Its length stays, so a writer that knows
nothing of this goes on where it is, a reader that follows keeps its place, no byte is lost between a copy and a
truncation, and a full disk is no obstacle. What a file takes on disk is bounded; its length tells how much there ever was.

When something was written stands in a second file beside it, in lines of `<seconds since the epoch> <length>`: at that time
the log was that long. So everything beyond the length of an entry was written later, whoever missed to look in between.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # who keeps such logs lives long, and does without what typing loads
if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

KEEP = 8 << 20
"""Bytes of a log that are there in any case."""
MOST = 16 << 20
"""Bytes of it above which all but the newest KEEP go."""
INDEX_MOST = 1 << 18
"""Bytes of the record of times; of what is older it keeps fewer entries."""

_ALIGN = 1 << 20  # a multiple of every file system's block
_FAR = 1 << 40  # file systems end at some length: ext4 at 16 TiB
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE (linux/falloc.h)
_LINE_MOST = 1 << 16
_TAIL = 1 << 16


def times(log: Path) -> Path:
    """Where the times of a log stand."""
    return log.with_name(f"{log.name}.times")


def bound(log: Path, *, keep: int = KEEP, most: int = MOST) -> bool:
    """Lets go of what is old once there is more than `most` bytes, and returns whether something went.

    Where the file system makes no holes the log begins anew, with its last 64 KiB. Raises OSError; a log that is not there
    is small enough.
    """
    try:
        fd = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(fd).st_size
        if size - beginning(fd) <= most:
            return False
        cut = (size - keep) // _ALIGN * _ALIGN if keep >= _ALIGN else size - keep
        if size > _FAR or not _punch(fd, cut):
            tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
            os.ftruncate(fd, 0)
            # Behind what the writer has added meanwhile, if it has: nothing of that is overwritten.
            os.write(fd, tail)
        return True
    finally:
        os.close(fd)


def beginning(fd: int, at: int = 0) -> int:
    """The offset, from `at` on, where there is something to read; `at` if there is nothing. Where it stands is kept."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno in (errno.ENXIO, errno.EINVAL):  # at its end; or a file system that cannot tell
            return at
        raise
    finally:
        os.lseek(fd, here, os.SEEK_SET)


def first_line(log: BinaryIO) -> int:
    """The offset of the first line that is there as a whole, or of the first byte if none was let go of."""
    start = beginning(log.fileno())
    if start == 0:
        return 0
    log.seek(start)
    newline = log.read(_LINE_MOST).find(b"\n")
    return start + newline + 1


def note_time(log: Path, now: float, known: int | None) -> int | None:
    """Writes down how long a log is at `now`, unless that is `known`; returns its length, None if there is no log.

    Raises OSError.
    """
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return None
    if size == known:
        return size
    path = times(log)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, f"{now:.1f} {size}\n".encode())
        if os.fstat(fd).st_size > INDEX_MOST:
            _thin(log, path)
    finally:
        os.close(fd)
    return size


def since(log: Path, moment: float) -> int | None:
    """The offset from which on everything is that was written since `moment`, in seconds since the epoch.

    What was written shortly before may come along, as the times are looked at once in a while, and all that is older than
    the first entry. None if there is no record.
    """
    entries = read_times(log)
    found = 0
    for at, size in entries:
        if at > moment:
            break
        found = size
    return found if entries else None


def read_times(log: Path) -> list[tuple[float, int]]:
    """The times and lengths of the log that is there now, oldest first; what is no entry is passed over."""
    try:
        with times(log).open("rb") as file:
            lines = file.read(2 * INDEX_MOST).split(b"\n")
    except OSError:
        return []
    entries: list[tuple[float, int]] = []
    for line in lines[:-1]:  # the last one is empty, or cut off
        try:
            at, size = line.split()
            entry = float(at), int(size)
        except ValueError:
            continue
        if entries and entry[1] < entries[-1][1]:
            entries.clear()  # the log began anew
        entries.append(entry)
    return entries


def _thin(log: Path, path: Path) -> None:
    """Keeps every other entry of the older half. Whoever looks meanwhile sees the old file or the new one."""
    entries = read_times(log)
    half = len(entries) // 2
    fewer = [*entries[:half:2], *entries[half:]]
    made = path.with_name(f"{path.name}.new")
    made.write_bytes(b"".join(f"{at:.1f} {size}\n".encode() for at, size in fewer))
    made.replace(path)


def _punch(fd: int, end: int) -> bool:
    """Frees all before `end`. False where that is not possible."""
    import ctypes  # noqa: PLC0415  # few logs ever grow so much

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(fd, _PUNCH, 0, end) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return False
    raise OSError(code, os.strerror(code))
