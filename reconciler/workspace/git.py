"""git on the host, for reading a repository that is somebody else's business.

It runs no hook, no filter, no monitor and no pager of that repository, reaches no network, takes no lock, asks nothing,
and is not led astray by variables that a calling git has set (git(1), githooks(5), gitattributes(5)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from reconciler.lib.errors import BangerError
from reconciler.lib.run import CommandError, Completed, require, run

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=true",
    "core.safecrlf=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "diff.external=",
    "core.pager=cat",
    "commit.gpgSign=false",
)
_ENV = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_PAGER": "cat",
}
# What of the caller's environment says where the user's own settings are. All other variables of git are left out.
_KEPT = frozenset(
    ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES")
)
_ESCAPE = re.compile(rb'\\([abfnrtv"\\]|[0-7]{3})')
_ESCAPED = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11, b'"': 34, b"\\": 92}


@dataclass(frozen=True)
class Repository:
    """A repository with files, by its top folder. `objects` is where its objects are kept, `index` its index."""

    root: Path
    objects: Path
    index: Path
    shallow: bool
    filters: tuple[str, ...] = field(default=(), repr=False)

    def argv(self, *words: str | Path) -> list[str]:
        """A command line of git in this repository."""
        settings = [*_SETTINGS, *self.filters]
        options = [part for setting in settings for part in ("-c", setting)]
        return ["git", "--no-pager", *options, "-C", str(self.root), *map(str, words)]

    def env(self, index: Path | None = None, objects: Path | None = None) -> dict[str, str | None]:
        """What goes with it. objects: a store that is written to instead of the repository's, which it has to know."""
        # A hook or an alias that calls banger has been given variables that name another repository, or index.
        found: dict[str, str | None] = {n: None for n in os.environ if n.startswith("GIT_") and n not in _KEPT}
        found |= _ENV
        if index is not None:
            found["GIT_INDEX_FILE"] = str(index)
        if objects is not None:
            found["GIT_OBJECT_DIRECTORY"] = str(objects)
        return found

    def git(
        self,
        *words: str | Path,
        input: bytes | None = None,
        index: Path | None = None,
        objects: Path | None = None,
        check: bool = True,
        more: Mapping[str, str] | None = None,
    ) -> Completed:
        """Runs git; CommandError if that fails and `check`."""
        env = {**self.env(index, objects), **(more or {})}
        return run(self.argv(*words), input=input, env=env, check=check)

    def ask(self, *words: str | Path, objects: Path | None = None) -> str:
        """The first line that a command prints; empty if it fails or prints nothing."""
        done = self.git(*words, check=False, objects=objects)
        return _text(done.stdout).partition("\n")[0] if done.returncode == 0 else ""

    @cached_property
    def identity(self) -> tuple[str, str]:
        """The user's name and address for commits; empty where git knows none."""
        return self.ask("config", "--get", "user.name"), self.ask("config", "--get", "user.email")

    def store(self, folder: Path) -> Path:
        """Makes an object store in `folder` that finds in this repository what it does not have itself."""
        objects = folder / "objects"
        (objects / "info").mkdir(parents=True)
        # gitrepository-layout(5): one path on each line, quoted where it has to be.
        (objects / "info" / "alternates").write_bytes(quoted(os.fsencode(self.objects)) + b"\n")
        return objects


def find(folder: Path) -> Repository:
    """The repository whose top folder is `folder`. BangerError says what else it is, and what would be right."""
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise BangerError(f"{folder} {what}, so there is nothing to ship", hint="correct `host` of the workspace")
    require("git", "git")
    plain = Repository(folder, folder, folder, False)
    words = (
        "rev-parse",
        "--is-bare-repository",
        "--is-shallow-repository",
        "--git-path",
        "objects",
        "--git-path",
        "index",
    )
    try:
        done = plain.git(*words, "--show-toplevel", check=False)
    except PermissionError:
        raise BangerError(f"{folder} cannot be entered: permission denied", hint=f"ls -ld {folder}") from None
    lines = _text(done.stdout).splitlines()
    if lines[:1] == ["true"]:
        raise BangerError(f"{folder} is a bare repository: it has no files", hint="name a clone of it that has")
    if done.returncode != 0 or len(lines) != 5:
        raise _none(folder, _text(done.stderr))
    top = Path(lines[4])
    if top.resolve() != folder.resolve():
        raise BangerError(f"{folder} lies inside of the repository {top}", hint=f"name the repository itself: {top}")
    found = Repository(folder, folder / lines[2], folder / lines[3], lines[1] == "true")
    names = _text(found.git("config", "--name-only", "--get-regexp", r"^filter\.", check=False).stdout).split("\n")
    drivers = sorted({name.removeprefix("filter.").rpartition(".")[0] for name in names if name})
    off = ("clean=", "smudge=", "process=", "required=false")
    return Repository(
        found.root, found.objects, found.index, found.shallow, tuple(f"filter.{d}.{o}" for d in drivers for o in off)
    )


def toplevel(folder: Path) -> Path | None:
    """The top folder of the repository that `folder` lies in; None if it lies in none."""
    text = Repository(folder, folder, folder, False).ask("rev-parse", "--show-toplevel")
    return Path(text) if text else None


def unquoted(name: str) -> str:
    """A path as git prints it, in quotes where it has unusual bytes (core.quotePath in git-config(1))."""
    if not (len(name) >= 2 and name.startswith('"') and name.endswith('"')):
        return name

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([_ESCAPED[code] if code in _ESCAPED else int(code, 8) & 0xFF])

    return os.fsdecode(_ESCAPE.sub(plain, name[1:-1].encode("utf-8", "surrogateescape")))


def quoted(path: bytes) -> bytes:
    """A path in the quotes of C if it needs them."""
    if path.isascii() and not any(c < 0x21 or c in b'"\\#' for c in path):
        return path
    return b'"' + b"".join(b"\\%03o" % c if c < 0x20 or c in b'"\\' or c > 0x7E else bytes([c]) for c in path) + b'"'


def _none(folder: Path, words: str) -> BangerError:
    if "not a git repository" in words:
        return BangerError(
            f"{folder} is not a git repository, and a workspace is one",
            hint=f"git -C {folder} init, then commit; `banger run` takes plain folders too",
        )
    return BangerError(
        f"git cannot read {folder}: {words.strip()}", replay=f"git -C {folder} rev-parse --show-toplevel"
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


__all__ = ["CommandError", "Repository", "find", "quoted", "toplevel", "unquoted"]
