"""The fields of tar headers and of PAX records, read strictly: what two readers could take for two things is refused.

ustar and PAX: POSIX.1-2017, pax(1). GNU's numbers and long names: "Basic Tar Format" of the GNU tar manual.
Linux's bounds: limits.h(0), xattr(7), makedev(3).
"""

from __future__ import annotations

import re
from functools import lru_cache

from reconciler.drivers.images.layers.refusal import RefusedError, shown

LONGEST_PATH = 4096
LONGEST_NAME = 255
DEEPEST = 512
LONGEST_TARGET = 4095
LARGEST_XATTR = 64 * 1024
LAST_SECOND = 2**32 - 1
"""Of squashfs, whose times are unsigned 32-bit numbers."""
_LAST_ID = 2**32 - 2  # the one after it is "no owner" to chown(2)
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*\Z")
_DECIMAL = re.compile(rb"[0-9]{1,20}\Z")
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.[0-9]*)?\Z")
_KEPT_XATTRS = (b"user.", b"security.", b"trusted.")
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")


@lru_cache(maxsize=4096)
def number(field: bytes, what: str) -> int:
    """A numeric header field: octal digits, or GNU's base 256. Raises RefusedError. Most entries have the same few."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    match = _OCTAL.match(field)
    if match is None:
        raise RefusedError(f"{what} {shown(field)} is not a number")
    return int(match[1], 8) if match[1] else 0


def decimal(value: bytes, what: str) -> int:
    """A number of a PAX record. Raises RefusedError."""
    if not _DECIMAL.match(value):
        raise RefusedError(f"{what} {shown(value)} is not a number")
    return int(value)


def owner(value: int, what: str) -> int:
    """A user or group id of Linux. Raises RefusedError."""
    if not 0 <= value <= _LAST_ID:
        raise RefusedError(f"{what} {value} is outside of 0 to {_LAST_ID}")
    return value


def device(major: int, minor: int) -> tuple[int, int]:
    """A device number as Linux has them: 12 bits and 20 bits. Raises RefusedError."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise RefusedError(f"device number {major}:{minor} is none of Linux")
    return major, minor


def clamped(seconds: int) -> int:
    """The nearest time that squashfs has."""
    return min(max(seconds, 0), LAST_SECOND)


def pax_time(value: bytes) -> int | None:
    """The whole seconds of a PAX record, which may have fractions and be negative; None if it is not a time."""
    match = _TIME.match(value)
    return None if match is None else int(match[1] + match[2])


def text(field: bytes, what: str) -> bytes:
    """A header field that ends at its first NUL, after which nothing else may stand."""
    value, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise RefusedError(f"{what} {shown(field.rstrip(bytes(1)))} has a NUL in it")
    return value


def components(path: bytes, what: str = "name") -> list[bytes]:
    """A path, absolute or not, as names below the image's root. Raises RefusedError for one that leaves it."""
    if len(path) > LONGEST_PATH:
        raise RefusedError(f"{what} has {len(path)} bytes, more than {LONGEST_PATH}")
    if b"\0" in path:
        raise RefusedError(f"{what} {shown(path)} has a NUL in it")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise RefusedError(f"{what} {shown(path)} has a component '..'")
    if len(parts) > DEEPEST:
        raise RefusedError(f"{what} is {len(parts)} folders deep, more than {DEEPEST}")
    if any(len(part) > LONGEST_NAME for part in parts):
        raise RefusedError(f"{what} {shown(path)} has a component of more than {LONGEST_NAME} bytes")
    return parts


def target(value: bytes) -> bytes:
    """What a symbolic link says. Raises RefusedError for what symlink(2) would not take."""
    if not 0 < len(value) <= LONGEST_TARGET or b"\0" in value:
        raise RefusedError(f"link target {shown(value)} is empty, has a NUL or more than {LONGEST_TARGET} bytes")
    return value


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header, the last of each keyword. Raises RefusedError."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 10)
        length = data[at:space] if space > 0 else b""
        end = at + int(length) if length.isdigit() else 0
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (
            space < end <= len(data) and equals and keyword and b"\0" not in keyword and data[end - 1 : end] == b"\n"
        ):
            raise RefusedError(f"extended header is damaged at {shown(data[at : at + 40])}")
        records[keyword] = value
        at = end
    return records


def xattr(name: bytes, value: bytes) -> bool:
    """Whether an extended attribute travels with the image; others are dropped. Raises RefusedError."""
    if name.startswith(_OVERLAY):
        raise RefusedError(f"attribute {shown(name)} would be an instruction to overlayfs")
    if b"\0" in name or len(name) > LONGEST_NAME or len(value) > LARGEST_XATTR or name in _KEPT_XATTRS:
        raise RefusedError(f"attribute {shown(name)} with {len(value)} bytes is none that Linux can have")
    # The host's SELinux label says nothing about the guest; squashfs has no place for system.*, ACLs among them.
    return name.startswith(_KEPT_XATTRS) and name != b"security.selinux"
