"""Writes the archive that the kernel unpacks as its first root file system.

The format is "newc" of cpio(5), as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it.
Written here and not by cpio(1), because that archives only what exists: a device node and files of root's need
root, and inode numbers and times would differ from run to run. The same entries give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive.

    Parameters
    ----------
    name: path without a leading slash; parents come first.
    mode: type and permissions, as in stat(2).
    data: a regular file's content, or a symbolic link's target.
    device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    @classmethod
    def folder(cls, name: str) -> Entry:
        return cls(name, stat.S_IFDIR | 0o755)

    @classmethod
    def file(cls, name: str, data: bytes, mode: int = 0o644) -> Entry:
        return cls(name, stat.S_IFREG | mode, data)

    @classmethod
    def link(cls, name: str, target: str) -> Entry:
        return cls(name, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def character_device(cls, name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
        return cls(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries as one archive, all owned by root, all with the same time."""
    parts = [_record(entry, inode) for inode, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _record(Entry(_TRAILER, 0), 0)])


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
