"""Where banger keeps things: may it write there, and is there room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.lib.paths import Paths
from reconciler.lib.units import GIB, human_size

# A build needs its tar and its squashfs side by side; below the second it is likely to fail in the middle.
_COMFORTABLE = 5 * GIB
_TOO_LITTLE = 1 * GIB


def folders(paths: Paths) -> Iterator[Check]:
    """Each root is a folder of ours, or can be made."""
    for name, folder in (("state", paths.state), ("cache", paths.cache), ("runtime", paths.runtime)):
        existing = _existing(folder)
        if not existing.is_dir():
            problem = f"{existing} is not a folder"
        elif not os.access(existing, os.W_OK | os.X_OK):
            problem = f"{existing} is not writable" + ("" if existing == folder else f", so {folder} cannot be made")
        else:
            yield Check(name=f"{name}-folder", status=Status.OK, detail=str(folder))
            continue
        yield Check(
            name=f"{name}-folder", status=Status.FAIL, detail=problem, hint="point BANGER_HOME at a folder of your own"
        )


def space(paths: Paths) -> Iterator[Check]:
    """Room for disks (state) and for images and kernels (cache)."""
    for name, folder in (("state", paths.state), ("cache", paths.cache)):
        usage = os.statvfs(_existing(folder))
        free = usage.f_bavail * usage.f_frsize
        status = Status.OK if free >= _COMFORTABLE else Status.WARN if free >= _TOO_LITTLE else Status.FAIL
        yield Check(
            name=f"{name}-space",
            status=status,
            detail=f"{human_size(free)} free for {folder}",
            hint=None
            if status is Status.OK
            else f"free some space, or set BANGER_HOME; {human_size(_COMFORTABLE)} is comfortable",
        )


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
