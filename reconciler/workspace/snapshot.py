"""The state of a repository as a commit: HEAD, what is staged, what is changed, and on request what git does not track.

Nothing is written to the repository: new objects go to a store of their own, and the index is a copy. The same state is
the same commit, whenever and wherever it is taken, so that comparing two states is comparing two names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from reconciler.lib.errors import BangerError
from reconciler.workspace.git import CommandError, Repository, find, unquoted

_AUTHOR = {
    "GIT_AUTHOR_NAME": "banger",
    "GIT_AUTHOR_EMAIL": "banger@localhost",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_NAME": "banger",
    "GIT_COMMITTER_EMAIL": "banger@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
}
NONE = "-"
"""Instead of a commit or a branch that there is not."""
_GITLINK = "160000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One state.

    Parameters
    ----------
    commit: stands for all of it. head, branch: as in the repository, or NONE.
    index, files: the trees of what is staged, and of the files.
    changes: path → what differs from HEAD, as git's letter (M, A, D, T), or `?` for what git does not track.
    submodules: path → the commit that is checked out there, of those that are checked out.
    store: where the new objects are, for as long as the snapshot is held.
    """

    repository: Repository
    commit: str
    head: str
    branch: str
    index: str
    files: str
    changes: Mapping[str, str]
    submodules: Mapping[str, str]
    store: Path
    notes: tuple[str, ...] = ()

    def entries(self, paths: set[str]) -> dict[str, tuple[str, str]]:
        """Path → mode and object, of those of `paths` that are in `files`."""
        if not paths:
            return {}
        found = {}
        for record in self.git("ls-tree", "-r", "-z", self.files).split("\0"):
            meta, _, path = record.partition("\t")
            if path in paths:
                mode, _, name = meta.split()
                found[path] = (mode, name)
        return found

    def git(self, *words: str, input: bytes | None = None) -> str:
        """What a command prints that may use the new objects."""
        return os.fsdecode(self.repository.git(*words, input=input, objects=self.store).stdout)


@contextmanager
def taken(folder: Path, *, untracked: bool) -> Iterator[Snapshot]:
    """The state of the repository `folder`, until the block ends. BangerError if it cannot be read."""
    repository = find(folder)
    scratch = Path(mkdtemp(prefix="banger-workspace-"))
    try:
        yield _take(repository, scratch, untracked=untracked)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _take(repository: Repository, scratch: Path, *, untracked: bool) -> Snapshot:
    store = repository.store(scratch)
    index = scratch / "index"
    if repository.index.exists():
        # With its times: git takes an entry that is as new as the index for one that may have changed since.
        shutil.copy2(repository.index, index)
    head = repository.ask("rev-parse", "-q", "--verify", "HEAD^{commit}") or NONE
    branch = repository.ask("symbolic-ref", "-q", "--short", "HEAD") or NONE
    notes = []
    staged = repository.git("write-tree", index=index, objects=store, check=False)
    links = _gitlinks(repository, index, store)
    submodules = _checked_out(repository, links)
    try:
        # Submodules are looked at here, so that git need not run itself with their settings.
        excluded = [f":(exclude,top,literal){path}" for path in links]
        repository.git("add", "-u", "--", ":/", *excluded, index=index, objects=store)
        if submodules:
            lines = b"".join(f"{_GITLINK} {c}\t".encode() + os.fsencode(p) + b"\0" for p, c in submodules.items())
            repository.git("update-index", "-z", "--index-info", input=lines, index=index, objects=store)
        extra = _untracked(repository, index) if untracked else []
        if extra:
            names = b"\0".join(map(os.fsencode, extra))
            repository.git("update-index", "--add", "-z", "--stdin", input=names, index=index, objects=store)
        files = _line(repository.git("write-tree", index=index, objects=store).stdout)
    except CommandError as problem:
        raise BangerError(
            f"the files of {repository.root} cannot be read: {problem.output.strip()}", replay=problem.replay
        ) from problem
    if staged.returncode == 0:
        tree = _line(staged.stdout)
    else:
        # In the middle of a merge there is no one index. The files, with their marks, are what there is.
        notes.append("there are conflicts: files arrive with their marks, and nothing is staged")
        tree = repository.ask("rev-parse", "-q", "--verify", "HEAD^{tree}") or files
    parents = [part for parent in (head,) if parent != NONE for part in ("-p", parent)]

    def commit(tree: str, message: str, *more: str) -> str:
        words = ("commit-tree", "--no-gpg-sign", *parents, *more, "-m", message, tree)
        return _line(repository.git(*words, objects=store, more=_AUTHOR).stdout)

    held = commit(tree, "What is staged")
    whole = commit(files, f"Workspace on {branch}", "-p", held)
    changes = _changes(repository, head, files, store)
    changes |= dict.fromkeys(extra, "?")
    return Snapshot(
        repository=repository,
        commit=whole,
        head=head,
        branch=branch,
        index=tree,
        files=files,
        changes=changes,
        submodules=submodules,
        store=store,
        notes=tuple(notes),
    )


def _gitlinks(repository: Repository, index: Path, store: Path) -> list[str]:
    if not (repository.root / ".gitmodules").exists():
        return []
    listing = os.fsdecode(repository.git("ls-files", "--stage", "-z", index=index, objects=store).stdout)
    return [record.partition("\t")[2] for record in listing.split("\0") if record.startswith(_GITLINK)]


def _checked_out(repository: Repository, links: list[str]) -> dict[str, str]:
    found = {}
    for path in links:
        folder = repository.root / path
        if os.path.lexists(folder / ".git") and not folder.is_symlink():
            inner = Repository(folder, folder, folder, False)
            if commit := inner.ask("rev-parse", "-q", "--verify", "HEAD^{commit}"):
                found[path] = commit
    return found


def _untracked(repository: Repository, index: Path) -> list[str]:
    listing = repository.git("ls-files", "--others", "--exclude-standard", "-z", index=index).stdout
    # One that ends with a slash is a repository of its own.
    return [path for path in os.fsdecode(listing).split("\0") if path and not path.endswith("/")]


def _changes(repository: Repository, head: str, files: str, store: Path) -> dict[str, str]:
    if head == NONE:
        listing = os.fsdecode(repository.git("ls-tree", "-r", "-z", "--name-only", files, objects=store).stdout)
        return {path: "A" for path in listing.split("\0") if path}
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-status", head, files)
    parts = os.fsdecode(repository.git(*words, objects=store).stdout).split("\0")
    return dict(zip(parts[1::2], parts[0::2], strict=False))


def _line(raw: bytes) -> str:
    return raw.decode("ascii").strip()


__all__ = ["NONE", "Snapshot", "taken", "unquoted"]
