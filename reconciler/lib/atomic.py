"""Files and folders that appear whole or not at all, and the traces of those that did not make it.

A staging folder lies next to its destination (same file system, so the rename is atomic, rename(2)) and is
locked by its maker (flock(2)) for as long as that process lives. A staging folder whose lock is free is a
corpse: its maker was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib.errors import BangerError

STAGING = ".staging"


class LockTakenError(BangerError):
    """Another process holds the lock."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces a file's content in one step; after a crash it is the old or the new, on disk.

    Raises OSError; a folder that is missing is not made.
    """
    path.parent.stat()
    with staging(path.parent) as folder:
        made = folder / path.name
        with made.open("xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    _sync(path.parent)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A private folder below `parent/.staging`, removed at the end; `publish` moves what is done out of it."""
    folder, lock = _make_folder(parent / STAGING)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        try:
            folder.parent.rmdir()
        except OSError:
            pass  # others work there


def _make_folder(base: Path) -> tuple[Path, int]:
    """A new locked folder below `base`. Nobody can take it for a corpse between its making and its locking."""
    while True:
        base.mkdir(parents=True, exist_ok=True)
        try:
            with _held(base):
                folder = Path(tempfile.mkdtemp(dir=base))
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX)
                return folder, lock
        except FileNotFoundError:
            continue  # being empty, it was removed by another process just now


@contextmanager
def _held(base: Path) -> Iterator[None]:
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def publish(source: Path, destination: Path) -> bool:
    """Moves a finished file or folder to its place, durably.

    Returns False, and leaves `source` alone, if the destination folder exists already: somebody else
    published the same content first. A file replaces a file.
    """
    _sync_tree(source)
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(destination)
    except OSError:
        if source.is_dir() and destination.is_dir():
            return False
        raise
    _sync(destination.parent)
    return True


def move(source: Path, destination: Path) -> None:
    """Renames a file or folder, durably: after a crash it is at exactly one of the two places.

    Raises OSError, also if the destination is a folder with something in it.
    """
    source.rename(destination)
    _sync(destination.parent)
    if source.parent != destination.parent:
        _sync(source.parent)


def staging_bases(root: Path, levels: int = 4) -> list[Path]:
    """The folders that staging folders lie in, down to so many levels below `root`; not those inside of a staging folder."""
    found: list[Path] = []
    here = [root]
    for _ in range(levels + 1):
        below: list[Path] = []
        for folder in here:
            try:
                with os.scandir(folder) as listing:
                    names = [child.name for child in listing if child.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # it is gone, or not ours to look into
            found += [folder / name for name in names if name == STAGING]
            below += [folder / name for name in names if name != STAGING]
        here = below
    return sorted(found)


def corpses(parent: Path) -> list[Path]:
    """Staging folders below `parent` that nobody is working in any more."""
    return _staged(parent, worked_in=False)


def held(parent: Path) -> list[Path]:
    """Staging folders below `parent` that somebody is working in."""
    return _staged(parent, worked_in=True)


def _staged(parent: Path, *, worked_in: bool) -> list[Path]:
    base = parent / STAGING
    try:
        with _held(base):
            return [folder for folder in sorted(base.iterdir()) if _locked(folder) is worked_in]
    except FileNotFoundError:
        return []


@contextmanager
def exclusive(path: Path, *, blocking: bool = True, what: str = "lock") -> Iterator[None]:
    """Holds an exclusive kernel lock on a file, which the kernel lets go however the holder ends.

    Raises LockTakenError at once if it is taken and `blocking` is False. The file stays: removing a lock file
    would let two holders in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockTakenError(f"{what} is held by another process", hint=f"fuser -v {path}") from None
        yield
    finally:
        os.close(fd)


def _locked(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for name in files:
                _sync(Path(folder) / name)
            _sync(Path(folder))
    else:
        _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
