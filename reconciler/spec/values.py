"""Single values of a VM: text of the file to what the model takes, or a problem in the document."""

from __future__ import annotations

import posixpath

from reconciler.lib.units import GIB, MIB, TIB, format_duration, format_size, parse_duration, parse_size
from reconciler.spec.defaults import Given
from reconciler.spec.tree import Document

MEMORY = (64 * MIB, 4 * TIB)
DISK = (64 * MIB, 16 * TIB - GIB)  # ext4 with blocks of 4 KiB ends files at 16 TiB
TIMEOUT = (1.0, 86400.0)
TTL = (1.0, 365 * 86400.0)
RESYNC = (10.0, 86400.0)
# Owned by the kernel, or by the boot before the volumes are mounted.
_RESERVED_MOUNTS = ("/proc", "/sys", "/dev", "/run")


def size_in_bytes(document: Document, given: Given, low: int, high: int) -> int | None:
    """Bytes; whole MiB, since no VMM takes memory in smaller units and disks need whole blocks."""
    if not given.usable:
        return None
    try:
        size = parse_size(given.value)
    except ValueError:
        document.report(given.path, f"{document.shown(given.path)} is not a size", "write one such as 512MiB")
        return None
    shown = document.shown(given.path)
    if not low <= size <= high:
        hint = f"write {format_size(low)} to {format_size(high)}"
        document.report(given.path, f"{shown} is too {'small' if size < low else 'large'}", hint)
    elif size % MIB:
        hint = f"write {format_size(-(-size // MIB) * MIB)}"
        document.report(given.path, f"{shown} is not a whole number of MiB", hint)
    else:
        return size
    return None


def mount_path(document: Document, given: Given, *, what: str = "a volume") -> str | None:
    """An absolute path in its shortest form, outside of what the system mounts."""
    if not given.usable:
        return None
    mount = str(given.value)
    shown = document.shown(given.path)
    normal = posixpath.normpath(mount).replace("//", "/", 1)
    if normal != mount:
        document.report(given.path, f"{shown} is not in its shortest form", f"write {normal}")
    elif mount == "/":
        hint = "use `disk` for the size of the root disk" if what == "a volume" else "name a folder below it"
        document.report(given.path, f"{what} cannot be the root", hint)
    elif any(mount == reserved or mount.startswith(f"{reserved}/") for reserved in _RESERVED_MOUNTS):
        hint = f"choose a place outside of {', '.join(_RESERVED_MOUNTS)}"
        document.report(given.path, f"{shown} belongs to the system", hint)
    else:
        return mount
    return None


def seconds(document: Document, given: Given, low: float, high: float) -> float | None:
    """A duration in seconds."""
    if not given.usable:
        return None
    try:
        result = parse_duration(given.value)
    except ValueError:
        document.report(given.path, f"{document.shown(given.path)} is not a duration", "write one such as 90s")
        return None
    if not low <= result <= high:
        hint = f"write {format_duration(low)} to {format_duration(high)}"
        document.report(given.path, f"{document.shown(given.path)} is out of bounds", hint)
        return None
    return result


def fraction(document: Document, given: Given) -> float | None:
    """`25%` as 0.25. The schema has seen to its form."""
    if not given.usable:
        return None
    return int(str(given.value).removesuffix("%")) / 100
