"""The smallest guest that proves an accelerator: an initramfs of one file, whose /init prints a marker and reboots.

Made here rather than of a busybox, so that a probe needs nothing installed but QEMU and takes no longer than
the kernel itself.
"""

from __future__ import annotations

import struct

MARKER = b"banger-probe-ok"

_BASE = 0x400000
_HEADERS = 64 + 56
_ASSEMBLY = (
    "b801000000",  # mov eax, 1            write(1, MARKER and a newline): 1 is /dev/console
    "89c7",  # mov edi, eax
    "be{message}",  # mov esi, message
    "ba{length}",  # mov edx, length
    "0f05",  # syscall
    "b8a9000000",  # mov eax, 169          reboot(2): both magic numbers, LINUX_REBOOT_CMD_RESTART
    "bfaddee1fe",  # mov edi, 0xfee1dead
    "be69191228",  # mov esi, 0x28121969
    "ba67452301",  # mov edx, 0x01234567
    "0f05",  # syscall
    "ebfe",  # jmp .
)


def initramfs() -> bytes:
    """An uncompressed newc archive (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

    The kernel's own built-in archive has /dev/console already.
    """
    return _member("init", 0o100755, _program()) + _member("TRAILER!!!", 0, b"")


def _program() -> bytes:
    """A static x86-64 ELF executable of one segment (elf(5))."""
    text = MARKER + b"\n"
    code = _code(message=0, length=len(text))
    code = _code(message=_BASE + _HEADERS + len(code), length=len(text))  # the text follows the code
    size = _HEADERS + len(code) + len(text)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + segment + code + text


def _code(**operands: int) -> bytes:
    """The machine code, with its 32-bit operands filled in."""
    words = {name: struct.pack("<I", value).hex() for name, value in operands.items()}
    return bytes.fromhex("".join(_ASSEMBLY).format(**words))


def _member(name: str, mode: int, data: bytes) -> bytes:
    # inode, mode, uid, gid, links, mtime, size, device and rdev numbers, name's length, checksum
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
