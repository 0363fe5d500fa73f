"""A bzImage of every compression is unpacked; a damaged one is an error, and never a big one."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard

from reconciler.drivers.kernels.extract import vmlinux
from reconciler.lib.errors import BangerError

ELF = b"\x7fELF" + random.Random(1).randbytes(1 << 20)


def lz4_legacy(data: bytes) -> bytes:
    blocks = []
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        blocks.append(struct.pack("<I", len(block)) + block)
    return b"\x02\x21\x4c\x18" + b"".join(blocks)


def sized(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As the kernel's build does it (scripts/Makefile.lib, size_append)."""
    return lambda data: compress(data) + struct.pack("<I", len(data))


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": sized(lz4_legacy),
    "gzip": gzip.compress,
    "xz": sized(lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)),
    "zstd": sized(lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data)),
    "bzip2": sized(bz2.compress),
    "lzma": sized(lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
}
every_format = pytest.mark.parametrize("name", FORMATS)


def bzimage(
    payload: bytes, *, offset: int = 0x40, length: int | None = None, version: int = 0x020F, sects: int = 3
) -> bytes:
    header = bytearray((sects or 4) * 512 + 512)
    header[0x1F1] = sects
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<II", header, 0x248, offset, len(payload) if length is None else length)
    return bytes(header) + bytes(offset) + payload + b"more code"


@every_format
def test_every_compression_is_unpacked(name: str) -> None:
    assert vmlinux(bzimage(FORMATS[name](ELF))) == ELF


@every_format
def test_larger_than_one_piece(name: str) -> None:
    elf = ELF * 9  # beyond lz4's 8 MiB blocks
    assert vmlinux(bzimage(FORMATS[name](elf))) == elf


def test_no_setup_sectors_means_four() -> None:
    assert vmlinux(bzimage(gzip.compress(ELF), sects=0)) == ELF


def test_an_elf_passes(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(ELF)
    assert vmlinux(tmp_path / "vmlinux") == ELF


@every_format
def test_a_payload_cut_in_the_middle_is_damaged(name: str) -> None:
    payload = FORMATS[name](ELF)
    with pytest.raises(BangerError, match=r"damaged|not an ELF"):
        vmlinux(bzimage(payload[: len(payload) // 2]))


@every_format
def test_a_bomb_stops_at_the_limit(name: str) -> None:
    with pytest.raises(BangerError, match="unpacks to more than 4 MiB"):
        vmlinux(bzimage(FORMATS[name](b"\x7fELF" + bytes(16 << 20))), limit=4 << 20)


@every_format
def test_only_an_elf_counts(name: str) -> None:
    with pytest.raises(BangerError, match="is not an ELF"):
        vmlinux(bzimage(FORMATS[name](b"hello" * 1000)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "neither an ELF nor"),
        (b"MZ" + bytes(4096), "neither an ELF nor"),
        (bzimage(gzip.compress(ELF), version=0x0207), "older than 2.08"),
        (bzimage(gzip.compress(ELF), length=1 << 31), "cut off"),
        (bzimage(gzip.compress(ELF), length=0), "cut off"),
        (bzimage(b"\0\1\2\3\4\5"), "unknown compression"),
        (bzimage(gzip.compress(ELF), offset=0x40)[:4000], "cut off"),
    ],
)
def test_a_lying_header_is_an_error(image: bytes, message: str) -> None:
    with pytest.raises(BangerError, match=message):
        vmlinux(image)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 17])
def test_a_lying_lz4_block_is_damaged(length: int) -> None:
    payload = bytearray(FORMATS["lz4"](ELF))
    struct.pack_into("<I", payload, 4, length)
    with pytest.raises(BangerError, match="lz4 payload is damaged"):
        vmlinux(bzimage(bytes(payload)))
