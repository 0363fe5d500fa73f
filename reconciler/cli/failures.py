"""How a failure looks: its cause, a hint, and the command that replays it, on stderr."""

from __future__ import annotations

import errno
import os
import traceback

from reconciler.cli.terminal import harmless, say
from reconciler.lib.errors import BangerError

_HINTS = {
    errno.ENOSPC: "free some space there, or point BANGER_HOME at another disk",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; point BANGER_HOME elsewhere",
    errno.EACCES: "run as the user who owns it, or point BANGER_HOME at a folder of your own",
    errno.EPERM: "run as the user who owns it, or point BANGER_HOME at a folder of your own",
}


def show(error: BangerError, *, what: str = "banger") -> None:
    """Prints an error. `what` says who failed, and is followed by the cause."""
    problems = getattr(error, "errors", ())
    if problems:
        # One `file:line:column: …` per line and nothing before it: editors and grep read that.
        for line in error.cause.splitlines():
            say(harmless(line))
    else:
        first, *rest = harmless(error.cause).splitlines() or ["unknown failure"]
        say(f"{what}: {first}", fg="red")
        for line in rest:
            say(f"    {line}")
    if error.hint:
        say(f"  hint: {harmless(error.hint)}", fg="yellow")
    if error.replay:
        say(f"  replay: {harmless(error.replay)}")


def show_os_error(error: OSError) -> None:
    """Prints what the operating system refused: `banger: /var/lib/banger: Permission denied`."""
    text = error.strerror or str(error)
    cause = f"{os.fsdecode(error.filename)}: {text}" if isinstance(error.filename, str | bytes) else text
    show(BangerError(cause, hint=_HINTS.get(error.errno or 0)))
    _trace(error)


def show_unexpected(error: Exception) -> None:
    """Prints a defect of banger in one line, and how to get all of it."""
    text = harmless(f"{type(error).__name__}: {error}".rstrip(": "))
    show(BangerError(f"unexpected error: {text}", hint=None if _debug() else "BANGER_DEBUG=1 shows where it happened"))
    _trace(error)


def _debug() -> bool:
    return os.environ.get("BANGER_DEBUG", "") not in ("", "0")


def _trace(error: Exception) -> None:
    if _debug():
        say("".join(traceback.format_exception(error)).rstrip())
