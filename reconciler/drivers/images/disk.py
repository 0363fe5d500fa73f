"""Disks from elsewhere: what of them the host looks at before a guest gets them.

QEMU's qcow2 can name other files of the host, as backing file or for its data (QEMU: docs/interop/qcow2.txt); one that
does is refused, and QEMU is always told the format, never asked to guess it. What is inside of a disk is for the guest.
"""

from __future__ import annotations

import struct
from pathlib import Path

from reconciler.lib.errors import BangerError
from reconciler.lib.units import GIB, human_size
from reconciler.model.artifacts import ImageFormat

MAX_VIRTUAL = 2048 * GIB
_QCOW2 = b"QFI\xfb"
_BACKING_AT, _SIZE_AT, _CRYPT_AT, _INCOMPATIBLE_AT = 8, 24, 32, 72
# Dirty and corrupt are told by the guest's failures; of the others only compression types and extended entries are known.
_EXTERNAL_DATA, _KNOWN = 1 << 2, 0b11111
# Offset and magic number of what a disk can begin with: ext2 to 4, XFS, btrfs, a partition table.
_RAW = ((1080, b"\x53\xef"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"), (510, b"\x55\xaa"), (512, b"EFI PART"))


def is_raw(start: bytes) -> bool:
    """Whether the first 128 KiB of a file are those of a file system, or of a disk with partitions."""
    return any(start[at : at + len(magic)] == magic for at, magic in _RAW)


def check(file: Path, kind: ImageFormat) -> None:
    """Raises BangerError for a qcow2 that is none, or that would have QEMU read other files than itself."""
    if kind is not ImageFormat.QCOW2:
        return
    with file.open("rb") as opened:
        header = opened.read(104)
    if len(header) < 72 or header[:4] != _QCOW2:
        raise BangerError("the image is no qcow2")
    (version,) = struct.unpack_from(">I", header, 4)
    (backing,) = struct.unpack_from(">Q", header, _BACKING_AT)
    (size,) = struct.unpack_from(">Q", header, _SIZE_AT)
    (crypt,) = struct.unpack_from(">I", header, _CRYPT_AT)
    features = struct.unpack_from(">Q", header, _INCOMPATIBLE_AT)[0] if version >= 3 and len(header) >= 80 else 0
    if version not in (2, 3):
        raise BangerError(f"the image is qcow2 of version {version}; 2 and 3 are known")
    if backing:
        raise BangerError(
            "the image is refused: it is a layer over another file", hint="qemu-img convert -O qcow2 makes it whole"
        )
    if features & _EXTERNAL_DATA or features & ~_KNOWN:
        raise BangerError("the image is refused: its data is in another file, or it has features that are not known")
    if crypt:
        raise BangerError("the image is encrypted", hint="qemu-img convert decrypts it")
    if size > MAX_VIRTUAL:
        raise BangerError(f"the image is a disk of {human_size(size)}, and at most {human_size(MAX_VIRTUAL)} are taken")
