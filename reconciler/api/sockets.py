"""The socket that a controller listens at: made whole, for its owner's eyes only, and one at a time."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.helper.transport import peer_of
from reconciler.lib.atomic import LockTakenError, exclusive
from reconciler.lib.errors import BangerError

_BACKLOG = 1024
# sun_path with its closing zero: unix(7).
_LONGEST = 107
_PROBE_SECONDS = 1.0


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, mode 0600, which appears by a rename when it can be connected to.

    What a dead process left there is replaced. Raises BangerError if somebody listens there, if others may write
    to the folder, or if the path is longer than a socket's may be.
    """
    if len(os.fsencode(path)) > _LONGEST - len(".new"):
        raise BangerError(
            f"the path of a socket has at most {_LONGEST} bytes: {path}", hint="point BANGER_HOME at a shorter one"
        )
    _private_folder(path.parent)
    lock = path.with_name(f"{path.name}.lock")
    try:
        with exclusive(lock, blocking=False):
            _nobody_answers(path)
            with _bound(path) as bound:
                yield bound
    except LockTakenError:
        _nobody_answers(path)
        raise BangerError(f"another process is about to listen at {path}", hint=f"fuser -v {lock}") from None


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    made = path.with_name(f"{path.name}.new")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        made.unlink(missing_ok=True)
        listener.bind(str(made))
        made.chmod(0o600)
        listener.listen(_BACKLOG)
        made.rename(path)
        # Somebody who tidies up may put another one there; only our own is ours to remove.
        own = path.lstat()
        try:
            yield listener
        finally:
            try:
                now = path.lstat()
                if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino):
                    path.unlink()
            except FileNotFoundError:
                pass


def _private_folder(folder: Path) -> None:
    """Made for us alone; one that is there may be read by others (the helper's socket is beside ours), not written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError as problem:
        raise BangerError(f"cannot make {folder}: {problem.strerror}") from None
    # The sticky bit would keep others from removing what is there, not from being there first.
    if found.st_uid not in (0, os.geteuid()) or stat.S_IMODE(found.st_mode) & 0o022:
        raise BangerError(f"others can write to {folder}, where the socket would be", hint=f"chmod go-w {folder}")


def _nobody_answers(path: Path) -> None:
    """BangerError if a process listens at `path`; it is named by what the kernel knows of it (SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as problem:
            raise BangerError(f"cannot tell whether somebody listens at {path}: {problem.strerror}") from None
        raise BangerError(
            f"process {peer_of(probe).pid} listens at {path} already", hint="one controller keeps a state directory"
        )
