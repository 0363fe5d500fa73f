"""What lies in the cache and in the trash, with sizes and times. Read-only.

A size is what is allocated on disk (`st_blocks`, stat(2)); a file of several names counts once, and comes free with
its last name. Extents that files share by reflink are not seen to be shared. What is no regular entry of ours (names
that begin with a dot, foreign files) is not listed, so that nothing can be done to it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from reconciler.lib.atomic import held, staging_bases
from reconciler.lib.inuse import last_use
from reconciler.lib.paths import Paths
from reconciler.model.retention import Entry, EntryKind, SharedFile

_BLOCK = 512  # of st_blocks, whatever the file system's (stat(2))
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")
_LARGEST_MANIFEST = 4 << 20  # as registries limit them (OCI distribution specification)
_FOLDER_MARKS = ("image.json", "kernel.json", "tools.json", "entry.json")


def places(paths: Paths) -> Mapping[EntryKind, Path]:
    """Where the entries of each kind lie, one name each; not of staging folders, which lie beside what they become."""
    return {
        EntryKind.BLOB: paths.blobs,
        EntryKind.IMAGE: paths.images,
        EntryKind.KERNEL: paths.kernels,
        EntryKind.INITRAMFS: paths.initramfs,
        EntryKind.TEMPLATE: paths.templates,
        EntryKind.TOOLS: paths.tools,
        EntryKind.TRASH: paths.trash,
    }


def names(folder: Path) -> list[str]:
    """The names of a folder's entries, unmeasured. OSError if it cannot be read."""
    return [name for name, _ in _children(folder)]


def blobs(folder: Path) -> Iterator[Entry]:
    """The blobs of a folder; a name that is no digest is not one. OSError if the folder cannot be read."""
    kind, is_digest, is_file = EntryKind.BLOB, _HEX.fullmatch, stat.S_ISREG
    for name, status in _children(folder):
        if not is_digest(name) or not is_file(status.st_mode):
            continue
        if status.st_nlink > 1:
            yield _file(kind, name, status)
        else:
            # Written out, since there may be a hundred thousand of them.
            made, used = status.st_mtime, status.st_atime
            yield Entry(kind, name, status.st_blocks * _BLOCK, made, used if used > made else made)


def entries(kind: EntryKind, folder: Path) -> Iterator[Entry]:
    """The entries of any other kind; files and folders alike. OSError if the folder cannot be read."""
    if kind is EntryKind.BLOB:
        yield from blobs(folder)
        return
    for name, status in _children(folder):
        if stat.S_ISDIR(status.st_mode):
            yield _folder(kind, folder / name, name, status)
        elif stat.S_ISREG(status.st_mode) and kind is not EntryKind.TRASH:
            yield _file(kind, name, status)


def staged(root: Path) -> Iterator[Entry]:
    """The staging folders below one of our roots that somebody works in, at most four folders deep."""
    for base in staging_bases(root):
        for folder in held(base.parent):
            try:
                yield _folder(EntryKind.STAGING, folder, str(folder), folder.stat())
            except FileNotFoundError:
                continue  # it is done


def used_bytes(found: Iterable[Entry]) -> int:
    """Bytes that entries take together, a file of several names once."""
    size = 0
    inodes: dict[str, int] = {}
    for entry in found:
        size += entry.size
        for file in entry.shared:
            inodes[file.inode] = file.size
    return size + sum(inodes.values())


def room(folder: Path) -> tuple[int, int]:
    """Free and total bytes of the file system that a folder lies on, or would lie on (statvfs(3), as df(1) shows them)."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def digests_in(file: Path) -> frozenset[str]:
    """The sha256 digests that a small file names, in hex: those of a lock file, or of a manifest. OSError."""
    with file.open("rb") as source:
        return frozenset(match.decode() for match in _DIGEST.findall(source.read(_LARGEST_MANIFEST)))


def reachable(digests: Iterable[str], folder: Path) -> frozenset[str]:
    """Blobs that these manifests and indexes lead to, themselves among them (OCI image specification, descriptors)."""
    found: set[str] = set()
    waiting = list(digests)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        blob = folder / digest
        try:
            if blob.stat().st_size <= _LARGEST_MANIFEST and _is_manifest(blob):
                waiting += digests_in(blob)
        except OSError:
            continue
    return frozenset(found)


def _is_manifest(blob: Path) -> bool:
    with blob.open("rb") as source:
        if source.read(1) != b"{":
            return False
        source.seek(0)
        try:
            document = json.loads(source.read(_LARGEST_MANIFEST))
        except (ValueError, RecursionError):
            return False
    return isinstance(document, dict) and ("manifests" in document or "layers" in document)


def _children(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    try:
        # By descriptor: with a path, the kernel would go the whole way down to the folder for each child.
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with os.scandir(opened) as listing:
            for child in listing:
                if not child.name.startswith("."):
                    try:
                        yield child.name, child.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
    finally:
        os.close(opened)


def _file(kind: EntryKind, name: str, status: os.stat_result) -> Entry:
    size = status.st_blocks * _BLOCK
    if status.st_nlink > 1:
        shared = SharedFile(_inode(status), size, status.st_nlink, 1)
        return Entry(kind, name, 0, status.st_mtime, last_use(status), (shared,))
    return Entry(kind, name, size, status.st_mtime, last_use(status))


def _folder(kind: EntryKind, folder: Path, name: str, status: os.stat_result) -> Entry:
    size, shared = _measure(folder)
    made = last_use(status)
    for mark in _FOLDER_MARKS:
        try:
            made = min(made, (folder / mark).stat().st_mtime)
        except OSError:
            continue
    return Entry(kind, name, size + status.st_blocks * _BLOCK, made, last_use(status), shared)


def _measure(folder: Path) -> tuple[int, tuple[SharedFile, ...]]:
    """Allocated bytes below a folder. What cannot be read there counts as nothing."""
    size = 0
    shared: dict[str, SharedFile] = {}
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as listing:
                for child in listing:
                    status = child.stat(follow_symlinks=False)
                    bytes_ = status.st_blocks * _BLOCK
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(Path(child.path))
                        size += bytes_
                    elif status.st_nlink > 1:
                        inode = _inode(status)
                        here = shared[inode].here + 1 if inode in shared else 1
                        shared[inode] = SharedFile(inode, bytes_, status.st_nlink, here)
                    else:
                        size += bytes_
        except OSError:
            continue
    inside = [file for file in shared.values() if file.here >= file.links]
    outside = tuple(file for file in shared.values() if file.here < file.links)
    return size + sum(file.size for file in inside), outside


def _inode(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"
