"""Two folders on this machine: one is the host's repository, the other is the guest's, entered by a shell of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.workspace.push import Pushed, Request, push

_CALM = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@dataclass(frozen=True)
class Place:
    """A folder with git."""

    root: Path

    def git(self, *words: str, check: bool = True, input: str | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.root), "-c", "protocol.file.allow=always", *words],
            env={**{k: v for k, v in os.environ.items() if not k.startswith("GIT_")}, **_CALM},
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"git {words}: {done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    def write(self, path: str, text: str = "x\n") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def commit(self, message: str = "change") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def status(self) -> list[str]:
        return self.git("status", "--porcelain").splitlines()

    def tree(self) -> dict[str, tuple[str, str]]:
        """Path → kind and content, of all that is no part of a .git."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            if ".git" in folders:
                folders.remove(".git")
            for name in [*names, *[f for f in folders if (Path(folder) / f).is_symlink()]]:
                path = Path(folder) / name
                if name == ".git":
                    continue
                kind = (
                    "link"
                    if path.is_symlink()
                    else "run"
                    if os.access(path, os.X_OK) and path.stat().st_mode & 0o100
                    else "file"
                )
                content = os.readlink(path) if path.is_symlink() else path.read_bytes().hex()
                found[str(path.relative_to(self.root))] = (kind, content)
        return found


def enter(words: Sequence[str]) -> list[str]:
    """The guest: a shell with nothing of ours in its environment. setpriv keeps it from seeing root's settings."""
    return ["env", "-i", f"PATH={os.environ['PATH']}", "HOME=/nonexistent", *words]


@dataclass(frozen=True)
class Pair:
    host: Place
    guest: Place

    def request(self, **more: object) -> Request:
        return Request(host=self.host.root, guest=str(self.guest.root), vm="dev", **more)  # type: ignore[arg-type]

    def push(self, *, dry_run: bool = False, **more: object) -> Pushed:
        return push(enter, self.request(**more), dry_run=dry_run)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A host with a first commit, and a guest that has never been shipped anything."""
    host = Place(tmp_path / "host")
    host.root.mkdir()
    host.git("init", "-q", "-b", "main")
    host.write("a.txt", "one\n")
    host.write("sub/b.txt", "two\n")
    host.commit("first")
    return Pair(host, Place(tmp_path / "guest side" / "repo"))
