"""Runs programs, for the one holder of the helper's lock: the root side's only door to subprocess.

By absolute path, in an empty environment, with its input built from checked fields.
"""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.helper.protocol import Code, Refusal

# Not below /run/lock, which every user may write to: a stranger could hold the lock.
LOCK = Path("/run/banger/helper.lock")
_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Runner:
    """Hands the lock down to what it runs.

    A lock belongs to the open file, not to a process (flock(2)). So if we are killed, the lock is free only once the
    command that we had started is done too, and the next helper does not see it take effect under its hands.
    """

    lock: int

    def __call__(self, program: str, *words: str, text: str = "") -> str:
        """What the program prints, given `text` on its standard input; Refusal (failed) if it does not succeed."""
        command = " ".join((program, *words))
        path = find(program)
        if path is None:
            raise Refusal(Code.FAILED, f"{program} is not installed")
        try:
            done = subprocess.run(
                [path, *words],
                input=text.encode(),
                capture_output=True,
                env={},
                pass_fds=[self.lock],
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as problem:
            raise Refusal(Code.FAILED, f"{command}: {problem}") from None
        if done.returncode != 0:
            message = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise Refusal(Code.FAILED, f"{command}: {message}")
        return done.stdout.decode("utf-8", "replace")


def find(program: str) -> str | None:
    """Where a program is, if it is installed."""
    paths = (f"{folder}/{program}" for folder in _FOLDERS)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


@contextmanager
def locked(path: Path = LOCK) -> Iterator[Runner]:
    """Holds the host-wide lock (flock(2)), which the kernel lets go however we end."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)  # whatever our umask: users have to reach the socket in it
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise Refusal(Code.FAILED, f"{path}: {problem.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Refusal(Code.FAILED, f"{path} is not a private file of ours")
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Runner(fd)
    finally:
        os.close(fd)
