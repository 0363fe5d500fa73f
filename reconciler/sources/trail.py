"""Which directories' entries decide what a path leads to (path_resolution(7)). Reads only."""

from __future__ import annotations

from collections import deque
from pathlib import Path

_MAX_LINKS = 40  # as in the kernel


def directories(path: Path) -> list[Path]:
    """The directory that holds the last component, and those that hold a symbolic link on the way to it.

    All without symbolic links themselves. Of a path that leads nowhere, as far as it goes.
    """
    found: dict[Path, None] = {}
    left = deque(path.absolute().parts[1:])
    at = Path("/")
    links = 0
    while left:
        name = left.popleft()
        if name == "..":
            at = at.parent
            continue
        entry = at / name
        try:
            target = entry.readlink()
        except OSError:
            # No link, or nothing at all: then the rest is not there either.
            if not left:
                found[at] = None
            at = entry
            continue
        found[at] = None
        links += 1
        if links > _MAX_LINKS:
            break
        if target.is_absolute():
            at = Path("/")
        left.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return list(found)
