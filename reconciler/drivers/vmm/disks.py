"""ext4 images as sparse files: made whole or not at all, and grown without risk to what is in them.

The journal stays on: a guest that loses power must come back with everything it had synced (I12).
Superblock fields: Linux, Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib import atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import CommandError, require, run
from reconciler.lib.units import MIB, human_size

PACKAGE = "e2fsprogs"
MIN_SIZE = 16 * MIB
"""Bytes. mke2fs leaves out the journal of a file system of less than 8 MiB."""
BLOCK = 4096
LABEL_BYTES = 16

_OPTIONS = ",".join(
    (
        "lazy_itable_init=1",  # the kernel zeroes inode tables and journal when there is time: both are holes here
        "lazy_journal_init=1",
        "nodiscard",
        "root_owner=0:0",  # of the guest's root, whoever makes the image
    )
)
# QEMU marks an open image with locks on these bytes (QEMU: block/file-posix.c, RAW_LOCK_PERM_BASE and _SHARED_BASE).
_QEMU_LOCKS = (100, 200)
_FLOCK = struct.Struct("hhqqi4x")  # struct flock, fcntl(2)


def create_ext4(path: Path, size: int, label: str) -> bool:
    """Makes an empty ext4 image of `size` bytes; True if it was made, False if the path exists already.

    An existing file is never touched, whatever it holds. Raises BangerError.
    """
    require("mkfs.ext4", PACKAGE)
    if size < MIN_SIZE or size % BLOCK:
        raise BangerError(
            f"a disk of {size} bytes: it must be at least {human_size(MIN_SIZE)}, in steps of {BLOCK} bytes"
        )
    if len(label.encode()) > LABEL_BYTES:
        raise BangerError(f"the label {label!r} is longer than {LABEL_BYTES} bytes")
    if os.path.lexists(path):
        return False
    with _named(path, "create"), atomic.staging(path.parent) as folder:
        image = folder / path.name
        with image.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        # One layout for all sizes: mke2fs would give a small one 1 KiB blocks, which are bad when it has grown.
        layout = ["-T", "default", "-b", str(BLOCK), "-m", "1"]
        run(["mkfs.ext4", "-q", "-F", *layout, "-E", _OPTIONS, "-L", label, image])
        _sync(image)
        try:
            # Not a rename, which would replace a disk that somebody else has made meanwhile.
            os.link(image, path)
        except FileExistsError:
            return False
        _sync(path.parent)
    return True


def grow_ext4(path: Path, size: int) -> bool:
    """Grows an image and the file system in it to `size` bytes; True if there was anything to do.

    Works on a copy, which then takes the image's place: resize2fs that is killed half-way can leave a file
    system behind that e2fsck does not repair by itself. The copy shares its blocks where the host's file system
    can (ioctl_ficlone(2)); elsewhere it needs as much free space as the image takes up, for as long as this lasts.

    For stopped VMs: the image is locked meanwhile, and QEMU refuses to open it. Raises BangerError, also for a
    smaller size, for a file system that needs repair by hand, and for an image in use.
    """
    for program in ("e2fsck", "resize2fs"):
        require(program, PACKAGE)
    with _named(path, "grow"), _unused(path):
        length, filled = path.stat().st_size, filesystem_size(path)
        if size < max(length, filled):
            raise BangerError(
                f"{path} is {human_size(max(length, filled))} and cannot become {human_size(size)}",
                hint="a disk only grows; make a new volume and copy",
            )
        # resize2fs leaves less than a block at the end unused.
        if size == length and size - filled < BLOCK:
            return False
        with atomic.staging(path.parent) as folder:
            copy = folder / path.name
            run(["cp", "--reflink=auto", "--sparse=always", "--preserve=mode,ownership", path, copy])
            os.truncate(copy, size)
            _fsck(copy)
            run(["resize2fs", copy])
            atomic.publish(copy, path)
    return True


def _fsck(path: Path) -> None:
    """resize2fs insists on a check. e2fsck(8): 1 and 2 mean repaired, 4 and more that it needs a human."""
    done = run(["e2fsck", "-f", "-p", path], check=False)
    if done.returncode & ~3:
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        raise CommandError(
            f"the file system in {path} is damaged", done.argv, done.returncode, said, hint=f"e2fsck -f {path}"
        )


def filesystem_size(path: Path) -> int:
    """Bytes that the ext4 superblock claims. Raises BangerError if there is none."""
    with path.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        raise BangerError(f"{path} holds no ext4 file system")
    low, shift, incompat, high = (struct.unpack_from("<I", block, offset)[0] for offset in (0x04, 0x18, 0x60, 0x150))
    blocks = low | (high << 32 if incompat & 0x80 else 0)  # INCOMPAT_64BIT
    return int(blocks << (10 + shift))


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Locks an image against QEMU, which locks what it has open; raises BangerError if it has."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for start in _QEMU_LOCKS:
            # Locks of the open file description, fcntl(2): like QEMU's, and safe with other descriptors and threads.
            request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 100, 0)
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
            except BlockingIOError:
                raise BangerError(
                    f"{path} is in use", hint="stop its VM first", error_class=ErrorClass.RETRYABLE
                ) from None
        yield
    finally:
        os.close(fd)


@contextmanager
def _named(path: Path, verb: str) -> Iterator[None]:
    """Turns what the system says into a sentence about this disk."""
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BangerError(
            f"cannot {verb} {path}: {problem.strerror}",
            hint=f"df -h {path.parent}" if full else None,
            error_class=ErrorClass.RETRYABLE if full else ErrorClass.TERMINAL,
        ) from None
    except CommandError as problem:
        if "No space left on device" not in problem.output:
            raise
        raise BangerError(
            f"cannot {verb} {path}: no space left on device",
            hint=f"df -h {path.parent}",
            replay=problem.replay,
            error_class=ErrorClass.RETRYABLE,
        ) from None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
