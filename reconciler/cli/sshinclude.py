"""The one line of banger's in the user's own ssh configuration: put there, or taken out, with no other byte changed.

The line is at the top, because ssh takes the first value that it finds for a setting, and because below a `Host` or
`Match` it would count for that alone (ssh_config(5), Include).
"""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError


def default_config() -> Path:
    """The file that ssh reads for this user. ssh goes by the account's home, not by $HOME (ssh(1), FILES)."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh" / "config"


def include_line(path: Path) -> bytes:
    """The line that makes ssh read `path`. Raises BangerError for a path that it cannot name."""
    text = str(path.absolute())
    # Newer releases expand these in an Include, and older ones do not: there is no spelling that both understand.
    if "%" in text or "${" in text or any(ord(character) < 0x20 for character in text):
        raise BangerError(
            f"ssh cannot include the path {text!r}", hint="use a folder without %, ${ and control characters"
        )
    # Two readers in turn: ssh's words know quotes, and glob(7) knows wildcards.
    for character in "\\*?[":
        text = text.replace(character, f"\\{character}")
    for character in '\\"':
        text = text.replace(character, f"\\{character}")
    return f'Include "{text}"\n'.encode()


def install(config: Path, line: bytes) -> bool:
    """Puts the line at the top, once. False: it was there, and nothing is written.

    Raises BangerError, also where the file is not a text that can be added to.
    """
    return _edit(config, lambda text: text if line in text.splitlines(keepends=True) else line + text)


def uninstall(config: Path, line: bytes) -> bool:
    """Takes the line out. False: it was not there."""
    if not config.exists():
        return False
    return _edit(config, lambda text: b"".join(found for found in text.splitlines(keepends=True) if found != line))


def _edit(config: Path, change: Callable[[bytes], bytes]) -> bool:
    # What a link leads to is what is replaced: many keep their configuration elsewhere.
    target = Path(os.path.realpath(config))
    try:
        if not config.parent.exists():
            config.parent.mkdir(mode=0o700)
        with _alone(target.parent):
            try:
                old, mode = target.read_bytes(), target.stat().st_mode & 0o7777
            except FileNotFoundError:
                old, mode = b"", 0o600
            new = change(old)
            if new == old:
                return False
            write_atomic(target, new, mode=mode)
            return True
    except OSError as problem:
        raise BangerError(
            f"cannot change {target}: {problem.strerror}",
            hint="`banger ssh-config --print` shows what to put where your ssh configuration is kept",
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks the folder itself: a lock file would stay behind in it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
