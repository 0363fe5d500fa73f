"""A part of the host that a layer would like to reach, and the proof that it did not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SECRET = "the host's own"


class Sentinel:
    """A tree next to where an image is made: everything in it is remembered, and has to be the same afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("victim", "etc/passwd", "dest-evil/file", "deep/er/file"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SECRET)
            path.chmod(0o640)
        (folder / "link").symlink_to("victim")
        os.mkfifo(folder / "pipe")
        self._before = self._look()

    def _look(self) -> dict[str, tuple[object, ...]]:
        seen: dict[str, tuple[object, ...]] = {}
        for path in [self.folder, *sorted(self.folder.rglob("*"))]:
            found = path.lstat()
            kind = stat.S_IFMT(found.st_mode)
            content = path.read_bytes() if stat.S_ISREG(kind) else None
            seen[str(path)] = (
                found.st_mode,
                found.st_uid,
                found.st_nlink,
                found.st_mtime_ns,
                found.st_ctime_ns,
                content,
            )
        return seen

    def untouched(self) -> bool:
        return self._look() == self._before
