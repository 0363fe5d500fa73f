"""How a guest that is gone took its leave: the last words of its kernel on the console. Read-only, light to import.

Linux prints them with the highest priority, so `quiet` does not hide them (kernel/reboot.c). They are worth nothing
unless nothing came after them: the log goes on from boot to boot.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

_TAIL = 4096
# Behind a login prompt the line is not the kernel's own, but its time stamp shows where it begins to speak.
_LAST = re.compile(r"(?:^|\[ *[0-9]+\.[0-9]+\] )reboot: (?P<what>Power down|Restarting system.*)$")
_OUR_FAILURE = re.compile(r"(?:\[[ 0-9.]+\] ?)?banger: ")
_MARK = re.compile(r"-- start at .* --")
_NEAR = 6
"""Lines: our init says what failed, has the kernel sync, and restarts."""


class Farewell(StrEnum):
    """What a guest's kernel said last."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    NONE = "none"
    """Nothing of the kind; or a restart because it could not come up."""
    SILENT = "silent"
    """Not a word since its start: perhaps it never was one."""


def mark_start(console_log: Path, when: str) -> None:
    """Ends what was said before a start, so that it is not taken for the last words of what comes after.

    Raises OSError if the log cannot be written.
    """
    with console_log.open("ab") as file:
        file.write(f"\r\n-- start at {when} --\r\n".encode())


def last_words(console_log: Path) -> Farewell:
    """Reads no more than the last 4 KiB. A log that is not there, or cannot be read, tells nothing."""
    try:
        with console_log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            text = file.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return Farewell.NONE
    lines = [line for line in (part.strip() for part in re.split(r"[\r\n]+", text)) if line]
    if not lines or _MARK.fullmatch(lines[-1]):
        return Farewell.SILENT
    match = _LAST.search(lines[-1])
    if match is None:
        return Farewell.NONE
    if match["what"] == "Power down":
        return Farewell.POWEROFF
    return Farewell.NONE if any(map(_OUR_FAILURE.match, lines[-_NEAR:])) else Farewell.REBOOT
