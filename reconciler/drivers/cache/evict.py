"""How entries go: looked at again under the lock of whoever uses them, renamed aside, removed.

Their tombstone is the intent in the journal, which is stored before anything is done. A folder is moved into a staging
folder, from where it is removed when all locks are given back: killed at any time, what is left is a corpse that the
next pass sweeps (`lib.atomic`). A blob goes with its name in one step (unlink(2)); a pull works with links of its own to
what it found, so that nothing is taken from under it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from reconciler.lib.atomic import move, staging
from reconciler.lib.errors import BangerError
from reconciler.lib.inuse import last_use, unused
from reconciler.lib.once import remove_tree

_BATCH = 2000
"""Files that go under one look at what is needed: a few milliseconds, during which nobody can begin to use another."""


_RENAMED = ".evicted"


Candidate = tuple[str, float]
"""A name in a folder, and when it was seen to have been used last."""


@dataclass(slots=True)
class Gone:
    """What became of candidates. `spared` says of each that stayed why; `freed` is in allocated bytes."""

    names: list[str] = field(default_factory=list)
    spared: dict[str, str] = field(default_factory=dict)
    freed: int = 0


Needed = Callable[[], AbstractContextManager[Callable[[str], str | None]]]
"""For as long as its block lasts, nothing else becomes needed; tells of a name what needs it, or None."""


def evict(folder: Path, candidates: Iterable[Candidate], needed: Needed, *, files: bool) -> Gone:
    """Removes those entries of a folder that nothing needs, that nobody uses, and that were not used since they were seen.

    Parameters
    ----------
    files: the entries are files of which everybody who uses one has a link of his own: there is no lock to ask for.

    Raises BangerError if something cannot be removed; what had gone before is gone.
    """
    gone = Gone()
    if not files:
        for left in folder.glob(f".*{_RENAMED}"):
            remove_tree(left)  # whoever renamed it was killed
    waiting = iter(_as_they_lie(folder, candidates) if files else candidates)
    while batch := tuple(islice(waiting, _BATCH)):
        try:
            if files:
                _unlink(folder, batch, needed, gone)
            else:
                for name, used_at in batch:
                    _set_aside(folder, name, used_at, needed, gone)
        except OSError as problem:
            raise BangerError(
                f"cannot remove from {folder}: {problem.strerror}", hint=f"ls -ld {folder}; findmnt -T {folder}"
            ) from problem
    return gone


def _as_they_lie(folder: Path, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Files in the order of their inodes, whose neighbours on disk go together: it takes a tenth less (as fts(3) does for rm(1))."""
    try:
        with os.scandir(folder) as listing:
            inodes = {child.name: child.inode() for child in listing}
    except FileNotFoundError:
        return []
    return sorted(candidates, key=lambda candidate: inodes.get(candidate[0], 0))


def empty(folder: Path, staged: Path) -> None:
    """Renames a folder aside in one step, puts an empty one in its place, and removes what was renamed.

    Parameters
    ----------
    staged: a folder of the same file system, below which the old one is removed.

    On a disk without a free block, where no folder can be made to rename it into, its files go one by one.

    Raises OSError, or BangerError if something stays.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    replaced = False
    with _room_or_not(), staging(staged) as aside:
        old = aside / "old"
        move(folder, old)
        replaced = True
        with _room_or_not():
            # Made in place, not renamed to it: whoever adds to it may have made it by now.
            folder.mkdir(exist_ok=True)
        remove_tree(old)
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    if not replaced:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)


@contextmanager
def _room_or_not() -> Iterator[None]:
    """What follows does what was not possible for lack of room."""
    try:
        yield
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise


def _unlink(folder: Path, batch: Sequence[Candidate], needed: Needed, gone: Gone) -> None:
    stat_, unlink, gone_too = os.stat, os.unlink, gone.names.append
    blocks = 0
    with needed() as why, _opened(folder) as parent:
        for name, used_at in batch:
            if (reason := why(name)) is not None:
                gone.spared[name] = reason
                continue
            try:
                status = stat_(name, dir_fd=parent, follow_symlinks=False)
                if status.st_atime > used_at or status.st_mtime > used_at:
                    gone.spared[name] = "it was used meanwhile"
                    continue
                unlink(name, dir_fd=parent)
            except FileNotFoundError:
                continue
            gone_too(name)
            if status.st_nlink == 1:
                blocks += status.st_blocks
    gone.freed += blocks * 512


def _set_aside(folder: Path, name: str, used_at: float, needed: Needed, gone: Gone) -> None:
    entry = folder / name
    with _aside(folder, name) as aside:
        with needed() as why, unused(entry) as free:
            if (reason := why(name)) is not None:
                gone.spared[name] = reason
                return
            if not free:
                if entry.exists():
                    gone.spared[name] = "somebody works with it"
                return
            if last_use(entry.stat()) > used_at:
                gone.spared[name] = "it was used meanwhile"
                return
            move(entry, aside)
        gone.names.append(name)
        remove_tree(aside)


@contextmanager
def _aside(folder: Path, name: str) -> Iterator[Path]:
    """Where an entry is moved to: into a staging folder, or where there is no room for one, to another name beside it."""
    with ExitStack() as stack:
        try:
            place = stack.enter_context(staging(folder)) / "entry"
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                raise
            place = folder / f".{name}{_RENAMED}"
        yield place


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
