"""A bzImage unpacked to the ELF that microVMs boot.

The setup header tells where the compressed payload lies (the x86 boot protocol, 2.08 and later:
Documentation/arch/x86/boot.rst of Linux). Libraries do the formats; here is only which, and how much at most.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import lz4.block
import zstandard

from reconciler.lib.errors import BangerError
from reconciler.lib.units import MIB

MAX_VMLINUX = 512 * MIB
"""Bytes. A distribution's kernel unpacks to 30 to 80 MiB; more than this is damage or an attack."""

_HEADER_MAGIC = b"HdrS"
_MAGIC_AT, _VERSION_AT, _SETUP_SECTS_AT = 0x202, 0x206, 0x1F1
_PAYLOAD_OFFSET_AT, _PAYLOAD_LENGTH_AT = 0x248, 0x24C
_PROTOCOL_WITH_PAYLOAD = 0x0208
_SECTOR = 512
_ELF = b"\x7fELF"
# The largest block that lz4's legacy frame has (lz4_Frame_format.md, "Legacy frame").
_LZ4_BLOCK = 8 * MIB
_CHUNK = MIB
_ZSTD_INPUT = 1024
# What a payload may ask for as its dictionary: the kernel's build takes up to 128 MiB (scripts/Makefile.lib, zstd22).
_MAX_WINDOW = 256 * MIB


class _Decompressor(Protocol):
    """What zlib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def vmlinux(source: bytes | Path, *, limit: int = MAX_VMLINUX) -> bytes:
    """The kernel's ELF image.

    Parameters
    ----------
    source: a bzImage, or its path. An ELF is returned as it is.
    limit: bytes that the result may have at most.

    Raises BangerError if it is neither, is damaged, uses an unknown compression, or is too large.
    """
    image = source.read_bytes() if isinstance(source, Path) else source
    if image[:4] == _ELF:
        return image
    data = _payload(image)
    found = next(((name, unpack) for magic, name, unpack in _FORMATS if data.startswith(magic)), None)
    if found is None:
        raise BangerError(f"the kernel's payload has an unknown compression (it begins with {data[:6].hex(' ')})")
    name, unpack = found
    result = bytearray()
    try:
        for piece in unpack(data):
            if len(result) + len(piece) > limit:
                raise BangerError(f"the kernel's {name} payload unpacks to more than {limit // MIB} MiB")
            result += piece
    except (_DamagedError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as problem:
        raise BangerError(f"the kernel's {name} payload is damaged: {problem}") from problem
    # arch/x86/boot/compressed/mkpiggy.c: the last 4 bytes of the payload tell, whatever the format.
    (expected,) = struct.unpack("<I", data[-4:])
    if len(result) != expected:
        raise BangerError(
            f"the kernel's {name} payload is damaged: it unpacks to {len(result)} bytes, not to {expected}"
        )
    if result[:4] != _ELF:
        raise BangerError(f"the kernel's {name} payload is not an ELF image")
    return bytes(result)


class _DamagedError(Exception):
    """What the libraries do not notice, or call by a name of their own."""


def _payload(image: bytes) -> bytes:
    if len(image) < _PAYLOAD_LENGTH_AT + 4 or image[_MAGIC_AT : _MAGIC_AT + 4] != _HEADER_MAGIC:
        raise BangerError("the kernel is neither an ELF nor an x86 bzImage")
    (version,) = struct.unpack_from("<H", image, _VERSION_AT)
    if version < _PROTOCOL_WITH_PAYLOAD:
        raise BangerError(f"the kernel's boot protocol {version >> 8}.{version & 255:02} is older than 2.08")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_OFFSET_AT)
    # "If 0, there are 4": the number of real-mode sectors, after the boot sector.
    start = ((image[_SETUP_SECTS_AT] or 4) + 1) * _SECTOR + offset
    if length == 0 or start + length > len(image):
        raise BangerError(
            f"the kernel is cut off: its payload ends at byte {start + length}, the file at byte {len(image)}"
        )
    return image[start : start + length]


def _stream(decompressor: _Decompressor, data: bytes) -> Iterator[bytes]:
    """In bounded pieces, so that a bomb is noticed before it fills the memory.

    The kernel's build appends the unpacked size (4 bytes) to every format but gzip, which has it in its trailer;
    as bytes after the end of the stream they are left alone.
    """
    piece = decompressor.decompress(data, _CHUNK)
    while piece or not decompressor.eof:
        if not piece:
            raise _DamagedError("it is cut off")
        yield piece
        if decompressor.eof:
            return
        rest = getattr(decompressor, "unconsumed_tail", b"")
        piece = decompressor.decompress(rest, _CHUNK)


def _gzip(data: bytes) -> Iterator[bytes]:
    return _stream(zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), data)


def _bzip2(data: bytes) -> Iterator[bytes]:
    return _stream(bz2.BZ2Decompressor(), data)


def _lzma(data: bytes) -> Iterator[bytes]:
    return _stream(lzma.LZMADecompressor(memlimit=_MAX_WINDOW), data)


def _zstd(data: bytes) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    try:
        # One call's output has no bound but its input: 4 bytes can stand for a block of 128 KiB (RFC 8878, 3.1.1.2).
        for start in range(0, len(data), _ZSTD_INPUT):
            yield unpacker.decompress(data[start : start + _ZSTD_INPUT])
            if unpacker.eof:
                return
    except zstandard.ZstdError as problem:
        raise _DamagedError(str(problem)) from problem
    raise _DamagedError("it is cut off")


def _lz4_legacy(data: bytes) -> Iterator[bytes]:
    """Blocks, each after its compressed length; the last 4 bytes of the payload are the unpacked size."""
    position, end = 4, len(data) - 4
    while position < end:
        if position + 4 > end:
            raise _DamagedError("a block's length is cut off")
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if length == 0 or length > end - position:
            raise _DamagedError(f"a block says it has {length} bytes, where {end - position} are left")
        try:
            yield lz4.block.decompress(data[position : position + length], uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as problem:
            raise _DamagedError(str(problem)) from problem
        position += length


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], Iterator[bytes]]], ...] = (
    (b"\x02\x21\x4c\x18", "lz4", _lz4_legacy),
    (b"\x1f\x8b\x08", "gzip", _gzip),
    (b"\xfd7zXZ\x00", "xz", _lzma),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"BZh", "bzip2", _bzip2),
    (b"\x5d\x00\x00", "lzma", _lzma),
)
