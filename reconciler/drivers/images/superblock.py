"""The superblock of a squashfs (Linux: fs/squashfs/squashfs_fs.h): whether a file is one, and where it ends."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from reconciler.lib.errors import BangerError

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQ")
_PAGE = 4096
_COMPRESSORS = {1: "gzip", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}


def trim(file: Path) -> None:
    """Gives a squashfs the length of a whole number of pages, of which it fills the last: as a disk it would lose its end
    otherwise, and what comes after it is of no use. Raises BangerError as `check_squashfs`."""
    os.truncate(file, -(-check_squashfs(file) // _PAGE) * _PAGE)


def check_squashfs(file: Path) -> int:
    """How many bytes of the file the squashfs has.

    Raises BangerError if it is none that Linux mounts, or is cut off.
    """
    with file.open("rb") as opened:
        head = opened.read(_SUPERBLOCK.size)
    if len(head) < _SUPERBLOCK.size or head[:4] != b"hsqs":
        raise BangerError("the image is no squashfs")
    _, _, _, block, _, compressor, log, _, _, major, minor, _, used = _SUPERBLOCK.unpack(head)
    if (major, minor) != (4, 0):
        raise BangerError(f"the image is squashfs {major}.{minor}; Linux mounts 4.0")
    if compressor not in _COMPRESSORS:
        raise BangerError(f"the squashfs has the compression {compressor}, which Linux does not read")
    if not 12 <= log <= 20 or block != 1 << log:
        raise BangerError("the squashfs is damaged: its block size is impossible")
    if not _SUPERBLOCK.size < used <= file.stat().st_size:
        raise BangerError(f"the squashfs is cut off: it has {used} bytes, the file {file.stat().st_size}")
    return int(used)
