"""Images by address or from a file: a squashfs as it is, a tar, a file system, or the disk of a virtual machine.

What a file is, its first bytes tell, unless the source says it. A squashfs is only looked at; a tar is flattened like
the layer of a container; disks are read by a guest, never by the host.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from reconciler.drivers.images import disk
from reconciler.drivers.images.flatten import Layer, flatten, media_type
from reconciler.drivers.images.packing import Job, JobKind, Workshop
from reconciler.drivers.images.superblock import trim
from reconciler.lib.download import download
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import ImagePaths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.units import GIB, MIB, human_size
from reconciler.model.artifacts import IMAGE_RECIPE, UrlImage
from reconciler.model.artifacts import ImageFormat as Format
from reconciler.model.codec import to_json

MAX_SIZE = 64 * GIB
_CHUNK = MIB
_USTAR_AT = 257  # tar(5)
_ZSTD_INPUT = 1024  # bytes: what one call makes of them has no other bound, and may be 32 MiB
_COMPRESSIONS = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd")


def make(
    source: UrlImage, target: ImagePaths, scratch: Path, progress: Progress, workshop: Workshop
) -> dict[str, object]:
    """Makes the squashfs of `target`. Returns what its manifest is to say of it besides.

    Raises BangerError: retryable if the server did not answer, else terminal.
    """
    file = scratch / "image"
    download(source.url, source.sha256, file, Share(progress, 0.5), limit=MAX_SIZE)
    progress.update(0.5, "looking at what came")
    plain = _unpacked(file, scratch / "unpacked", Share(progress, 0.1, 0.5))
    found = source.format if source.format is not Format.AUTO else recognised(plain)
    warnings: tuple[str, ...] = ()
    rest = Share(progress, 0.35, 0.6)
    match found:
        case Format.SQUASHFS:
            trim(plain)
            plain.rename(target.squashfs)
        case Format.TAR:
            with plain.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            layer = Layer(plain, media_type(plain), f"sha256:{digest}", plain.stat().st_size, None)
            warnings = flatten([layer], target.squashfs, scratch, rest).warnings
        case _:
            disk.check(plain, found)
            workshop.pack(Job(kind=JobKind.DISK, root=plain, format=found.value), target.squashfs, scratch, rest)
    return {
        "inputs": {"recipe": IMAGE_RECIPE, **to_json(source)},
        "format": found.value,
        "warnings": list(warnings),
    }


def recognised(file: Path) -> Format:
    """What a file is, by its magic numbers. Raises BangerError if it is nothing that has a root file system."""
    with file.open("rb") as opened:
        start = opened.read(128 * 1024)
    if start[:4] == b"hsqs":
        return Format.SQUASHFS
    if start[:4] == b"QFI\xfb":
        return Format.QCOW2
    if start[_USTAR_AT : _USTAR_AT + 5] == b"ustar":
        return Format.TAR
    if disk.is_raw(start):
        return Format.RAW
    raise BangerError(
        f"what came is neither squashfs, tar, qcow2 nor a disk (it begins with {start[:8].hex(' ') or 'nothing'})",
        hint="say its `format` if it is one of them all the same",
    )


def _unpacked(file: Path, into: Path, progress: Progress) -> Path:
    """The file itself, or what is in it if it is compressed. Raises BangerError if that is damaged, or too much."""
    with file.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if not magic.startswith(_COMPRESSIONS):
            return file
        size = 0
        try:
            with into.open("wb") as out:
                for piece in _pieces(raw, magic):
                    size += len(piece)
                    if size > MAX_SIZE:
                        raise BangerError(f"the image unpacks to more than {human_size(MAX_SIZE)}")
                    out.write(piece)
                    progress.update(None, f"unpacking: {human_size(size)}")
        except (lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError, gzip.BadGzipFile) as problem:
            raise BangerError(f"the image is damaged: {problem}") from problem
        except OSError as problem:
            if problem.errno is None:  # bz2's way to say it
                raise BangerError(f"the image is damaged: {problem}") from problem
            raise
    file.unlink()
    return into


def _pieces(raw: IO[bytes], magic: bytes) -> Iterator[bytes]:
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _zstd(raw)
        return
    opener = gzip.open if magic.startswith(b"\x1f\x8b") else bz2.open if magic.startswith(b"BZh") else lzma.open
    with opener(raw) as stream:
        while piece := stream.read(_CHUNK):
            yield piece


def _zstd(raw: IO[bytes]) -> Iterator[bytes]:
    """Frame after frame (RFC 8878, section 3.1). The library's own reader takes a file that is cut off for one that ends."""
    unpacker, rest = None, b""
    while piece := rest or raw.read(_ZSTD_INPUT):
        unpacker = unpacker or zstandard.ZstdDecompressor(max_window_size=128 * MIB).decompressobj()
        yield unpacker.decompress(piece)
        rest = unpacker.unused_data if unpacker.eof else b""
        unpacker = None if unpacker.eof else unpacker
    if unpacker is not None:
        raise EOFError("it is cut off")
