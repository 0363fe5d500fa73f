"""What was installed: which files, with which content. Whatever is not in it is somebody else's."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.install.layout import digest
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError


@dataclass(frozen=True, slots=True)
class Record:
    """The files by path, each with the digests that it may have from us, and the digest of the package."""

    files: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    package: str = ""

    @classmethod
    def read(cls, path: Path) -> Record:
        """What `path` remembers; an empty record if it is not there. Raises BangerError if it cannot be read."""
        try:
            data: Any = json.loads(path.read_bytes())
            files = {Path(name): tuple(map(str, known)) for name, known in data["files"].items()}
            return cls(files, str(data["package"]))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BangerError(
                f"cannot read {path}, which says what is installed: {problem}",
                hint=f"move it away: mv {path} {path}.broken; what was installed before then counts as somebody else's",
            ) from None

    def write(self, path: Path) -> None:
        """Raises OSError."""
        files = {str(name): list(known) for name, known in sorted(self.files.items())}
        text = json.dumps({"package": self.package, "files": files}, indent=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode() + b"\n")

    def ours(self, path: Path) -> bool:
        """Whether a file is as we left it."""
        return present(path) in self.files.get(path, ())


def present(path: Path) -> str | None:
    """The digest of a file as it is; None if there is none. What is no plain file has a digest like no other."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return "no plain file"
    return digest(path.read_bytes(), stat.S_IMODE(found.st_mode))
