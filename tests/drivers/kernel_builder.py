"""Kernels that never ran: just as much of an ELF and of a bzImage as somebody looks at."""

from __future__ import annotations

import gzip
import struct

RELEASE = "6.9.1-test"
CONFIG = {
    **dict.fromkeys(("BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS", "TMPFS", "SYSFS", "PROC_FS"), "y"),
    **dict.fromkeys(("SERIAL_8250_CONSOLE", "ACPI", "VIRTIO_MMIO", "VIRTIO_BLK", "VIRTIO_NET"), "y"),
    **dict.fromkeys(("OVERLAY_FS", "SQUASHFS", "EXT4_FS"), "y"),
}


def config_text(config: dict[str, str]) -> str:
    return "# a comment\n" + "".join(f"CONFIG_{key}={value}\n" for key, value in config.items())


def note(name: bytes, kind: int, content: bytes) -> bytes:
    name += b"\0"
    padded = [piece + bytes(-len(piece) % 4) for piece in (name, content)]
    return struct.pack("<III", len(name), len(content), kind) + b"".join(padded)


def elf(
    *,
    pvh: bool = True,
    release: str | None = RELEASE,
    config: dict[str, str] | None = None,
    machine: int = 62,
) -> bytes:
    """A static x86-64 ELF with one segment of notes, a banner, and a configuration within if one is given."""
    notes = note(b"GNU", 3, bytes(20)) + (note(b"Xen", 18, bytes(8)) if pvh else b"")
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
    banner = f"Linux version {release} (somebody@somewhere)\n".encode() if release else b""
    within = b"IKCFG_ST" + gzip.compress(config_text(config).encode()) + b"IKCFG_ED" if config is not None else b""
    return header + segment + notes + b"IKCFG_ST%s" + banner + within


def bzimage(kernel: bytes) -> bytes:
    payload = gzip.compress(kernel)
    header = bytearray(4 * 512)
    header[0x1F1] = 3
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x020F)
    struct.pack_into("<II", header, 0x248, 0, len(payload))
    return bytes(header) + payload
