"""What names that move were found to mean, each in a small file: a tag of a registry, and the digest behind it.

There is one answer for each name on a host, as with other tools for containers: who asks a registry anew moves it for
everybody. What a file on disk is, is remembered together with a stamp of that file, and forgotten when that changes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from reconciler.lib.atomic import write_atomic
from reconciler.lib.units import rfc3339

_LONGEST = 16 * 1024


def remembered(folder: Path, name: str) -> str:
    """What `name` was found to mean; nothing if nobody asked, or the answer may be out of date. Never fails."""
    try:
        with _file(folder, name).open("rb") as file:
            record = json.loads(file.read(_LONGEST))
    except (OSError, ValueError):
        return ""
    match record:
        case {"name": str(of), "means": str(meaning), "stamp": str(known)}:
            return meaning if of == name and known == stamp(name) else ""
    return ""


def remember(folder: Path, name: str, meaning: str, seen: str, now: float) -> None:
    """Keeps an answer; one that is known already is not written again.

    Parameters
    ----------
    seen: the `stamp` from before it was asked for.
    now: seconds since the epoch.

    Raises OSError.
    """
    if remembered(folder, name) == meaning:
        return
    folder.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "means": meaning, "stamp": seen, "at": rfc3339(now)}
    write_atomic(_file(folder, name), json.dumps(record, indent=2).encode() + b"\n")


def stamp(name: str) -> str:
    """Of a path, what changes when it is written anew; a folder goes by its `index.json`. Of other names, nothing."""
    if not name.startswith("/"):
        return ""
    path = Path(name)
    try:
        status = (path / "index.json" if path.is_dir() else path).stat()
    except OSError:
        return "missing"
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _file(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
