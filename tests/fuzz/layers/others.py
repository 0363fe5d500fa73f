"""Runs in a sandbox: unpacks archives with GNU tar and libarchive's bsdtar, and tells what came out, as lines of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

PROGRAMS = {
    "gnutar": ["tar", "--no-same-owner", "-xpf"],
    "bsdtar": ["bsdtar", "--no-same-owner", "--no-xattrs", "--no-acls", "--no-fflags", "-xpf"],
}


def unpack(program: str, archive: Path, work: Path) -> dict[str, object]:
    work.mkdir()
    try:
        # Names decide what is written; the program stands in an empty folder of its own.
        argv = [*PROGRAMS[program], str(archive)]
        done = subprocess.run(argv, cwd=work, capture_output=True, timeout=10, check=False)
        said = done.stderr.decode("utf-8", "backslashreplace")
        return {"code": done.returncode, "said": said[:500], "tree": look(work)}
    except subprocess.TimeoutExpired:
        return {"code": 124, "said": "takes too long", "tree": {}}
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(work)], capture_output=True, check=False)
        shutil.rmtree(work)


def look(work: Path) -> dict[str, list[object]]:
    """Type, mode, time, content or target, and number of the file, by path (latin-1)."""
    found: dict[str, list[object]] = {}
    work.chmod(0o700)  # an entry "." may have changed it
    base = os.fsencode(work)
    for folder, folders, files in os.walk(base):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            what = ""
            if kind == stat.S_IFREG:
                if not status.st_mode & 0o400:
                    os.chmod(path, 0o600)
                with open(path, "rb") as file:
                    data = file.read(1 << 20)
                os.chmod(path, stat.S_IMODE(status.st_mode))  # it may have another name
                what = data.decode("latin-1") if len(data) <= 4096 else hashlib.sha256(data).hexdigest()
            elif kind == stat.S_IFLNK:
                what = os.readlink(path).decode("latin-1")
            elif kind == stat.S_IFDIR and status.st_mode & 0o700 != 0o700:
                os.chmod(path, 0o700)
            key = os.path.relpath(path, base).decode("latin-1")
            found[key] = [_name(kind), stat.S_IMODE(status.st_mode), int(status.st_mtime), what, status.st_ino]
    return found


def _name(kind: int) -> str:
    names = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
    return names.get(kind, "device")


def main() -> None:
    os.umask(0o022)
    for archive in sorted(Path(sys.argv[1]).iterdir()):
        result = {program: unpack(program, archive, Path(sys.argv[2]) / "out") for program in PROGRAMS}
        print(json.dumps({"archive": archive.name, **result}), flush=True)


if __name__ == "__main__":
    main()
