"""Artifacts that are made once, however many ask for them, in however many processes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from reconciler.lib import builder
from reconciler.lib.atomic import LockTakenError, exclusive, publish, staging
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.progress import Progress, Silent
from reconciler.lib.run import cancelled, run

_LOCKS = ".locks"
_POLL_SECONDS = 0.1


def once(destination: Path, progress: Progress, make: Callable[[Path, Path], None]) -> None:
    """Makes the folder `destination` if it is not there.

    The first who asks makes it; the others wait for the kernel to take the lock away from that one, however it
    ends, and find the folder done or make it themselves.

    Parameters
    ----------
    make: gets an empty folder to fill, which becomes `destination`, and another for scratch, which goes.
    """
    if destination.is_dir():
        return
    try:
        with _turn(destination.parent / _LOCKS / destination.name, progress):
            if not destination.is_dir():
                _make(destination, make)
    except OSError as problem:
        raise BangerError(
            f"cannot write below {destination.parent}: {problem.strerror}",
            hint=f"df -h {destination.parent}; ls -ld {destination.parent}",
        ) from problem


def remove_tree(path: Path, *, keep: bool = False) -> None:
    """Removes a folder, also where its files belong to the user's subordinate ids (subuid(5)).

    Parameters
    ----------
    keep: leave the empty folder itself.

    Raises BangerError if something stays. A folder that is not there is fine.
    """
    _rmtree(path, keep=keep)
    if _gone(path, keep=keep):
        return
    if (elsewhere := builder.delegate()) and not keep:
        builder.ask(elsewhere, "remove", str(path), Silent())
    elif os.geteuid() != 0:
        # A user may remove what the user's own subordinate ids own only as root of a namespace that maps them.
        inner = list(path.iterdir()) if keep else [path]
        run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", *inner], check=False)
    if not _gone(path, keep=keep):
        raise BangerError(f"cannot remove {path}", replay=f"rm -rf {path}", hint=f"findmnt --list | grep {path}")


def _rmtree(path: Path, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _gone(path: Path, *, keep: bool) -> bool:
    return not os.path.lexists(path) or (keep and not any(path.iterdir()))


def _make(destination: Path, make: Callable[[Path, Path], None]) -> None:
    with staging(destination.parent) as folder:
        artifact, scratch = folder / "artifact", folder / "tmp"
        artifact.mkdir()
        scratch.mkdir()
        try:
            make(artifact, scratch)
            publish(artifact, destination)
        finally:
            # What a broken build left may belong to subordinate users, whom staging cannot remove. If this cannot
            # either, the reason of the failure counts more, and the folder is found among the corpses.
            with suppress(BangerError):
                remove_tree(folder, keep=True)


@contextmanager
def _turn(lock: Path, progress: Progress) -> Iterator[None]:
    """Waits for a lock in small steps, because a thread blocked in flock(2) would not see a cancellation."""
    with ExitStack() as stack:
        waiting = False
        while True:
            if cancelled():
                raise CancelledError
            try:
                stack.enter_context(exclusive(lock, blocking=False, what=str(lock)))
            except LockTakenError:
                if not waiting:
                    progress.update(None, "waiting for the same work elsewhere")
                waiting = True
                time.sleep(_POLL_SECONDS)
            else:
                break
        yield
