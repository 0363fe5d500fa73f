"""Guest to host: what was done there, as a branch or as a patch. The files of the host are not touched.

What comes is the guest's, so it is not trusted: it lies in a store of its own until git has checked every object of it
(`index-pack --strict`, which knows of paths that lead out of a tree, and of `.git` in one), nothing of it is checked
out, and no setting or hook of the guest's repository comes along.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from reconciler.lib.errors import BangerError
from reconciler.lib.progress import Progress, Silent
from reconciler.workspace.git import CommandError, Repository, find
from reconciler.workspace.snapshot import NONE
from reconciler.workspace.wire import Enter, Facts, Place, connected

MOST_BYTES = 8 << 30
_OURS = "refs/banger/pulled"
_UNCOMMITTED = "Changes that were not committed in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """The guest's state, in a store beside the repository's.

    Parameters
    ----------
    head: its commit, or NONE. files: its files, with those that git does not track yet and does not ignore.
    base: the files as they were shipped last, or None. commits: those that the host does not have, newest first.
    """

    repository: Repository
    store: Path
    facts: Facts
    head: str
    files: str
    base: str | None
    commits: tuple[str, ...]

    def git(self, *words: str, input: bytes | None = None) -> bytes:
        return self.repository.git(*words, input=input, objects=self.store).stdout

    @property
    def uncommitted(self) -> tuple[str, ...]:
        """Paths of changes made in the guest, and not committed there. What was shipped so does not count."""
        since_head = self._paths(self.head, self.files) if self.head != NONE else None
        since_push = self._paths(self.base, self.files) if self.base is not None else None
        if since_head is None or since_push is None:
            return tuple(sorted(since_head or since_push or ()))
        return tuple(sorted(since_head & since_push))

    def _paths(self, old: str, new: str) -> set[str]:
        listing = os.fsdecode(self.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new))
        return {path for path in listing.split("\0") if path}


@contextmanager
def brought(enter: Enter, host: Path, path: str, progress: Progress | None = None) -> Iterator[Brought]:
    """Fetches the guest's state, for the length of the block. BangerError if there is none, or it is damaged."""
    progress = progress or Silent()
    repository = find(host)
    # Of this name, git prune knows what to do with what a kill leaves.
    scratch = Path(mkdtemp(prefix="tmp_objdir-banger-", dir=_writable(repository)))
    try:
        store = repository.store(scratch)
        progress.update(None, "asking the guest")
        with connected(enter, path) as guest:
            facts = guest.facts
            if not facts.git or facts.place is not Place.REPOSITORY:
                guest.talk.say("quit")
                raise BangerError(
                    f"{path} in the guest is no repository, so there is nothing to bring", hint="push it first"
                )
            guest.talk.say("export", *(f"have {commit}" for commit in _common(repository, facts)), "end")
            key, rest = guest.answer()
            if key != "snapshot":
                raise BangerError(f"the guest answered with nonsense: {key}")
            made, head, files, extra = (_name(word) for word in rest.split(" "))
            guest.answer()  # pack
            progress.update(None, "receiving")
            (store / "pack").mkdir()
            words = repository.argv("index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={MOST_BYTES}")
            try:
                guest.talk.drain(words, most=MOST_BYTES, env=repository.env(objects=store))
            except CommandError as problem:
                raise BangerError(
                    f"what the guest sent is refused: {problem.output.strip() or problem.cause}",
                    hint="git fsck in the guest's repository says more",
                ) from problem
        yield _seen(repository, store, facts, (made, head, files, extra))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _seen(repository: Repository, store: Path, facts: Facts, names: tuple[str, str, str, str]) -> Brought:
    made, head, files, extra = names
    try:
        tree = repository.git("rev-parse", "-q", "--verify", f"{made}^{{tree}}", objects=store).stdout.decode().strip()
        base = None
        if extra != NONE:
            base = repository.git("rev-parse", "--verify", f"{extra}^{{tree}}", objects=store).stdout.decode().strip()
        commits: list[str] = []
        if head != NONE:
            words = ("rev-list", "--max-count=1000", head, "--not", "--all")
            commits = repository.git(*words, objects=store).stdout.decode().split()
    except CommandError as problem:
        raise BangerError(f"what the guest sent is not whole: {problem.output.strip()}") from problem
    if tree != files:
        raise BangerError("what the guest sent is not what it said")
    return Brought(
        repository=repository, store=store, facts=facts, head=head, files=files, base=base, commits=tuple(commits)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought. `branch` is None if there was nothing of the guest's own."""

    branch: str | None
    commit: str = NONE
    commits: int = 0
    uncommitted: tuple[str, ...] = ()
    changed: bool = False


def pull(
    enter: Enter, host: Path, path: str, *, vm: str, branch: str | None = None, progress: Progress | None = None
) -> Pulled:
    """Brings what was done in the guest into a branch of the host: its commits as they are, then one for the rest.

    branch: None for `banger/<vm>`. BangerError if that is checked out, or has commits of somebody else.
    """
    target = branch or f"banger/{vm}"
    with brought(enter, host, path, progress) as guest:
        uncommitted = guest.uncommitted
        if not guest.commits and not uncommitted and _has(guest.repository, guest.head):
            return Pulled(branch=None)
        ref = _ref(guest.repository, target)
        old = guest.repository.ask("rev-parse", "-q", "--verify", ref)
        tip = _tip(guest, uncommitted, vm, old)
        if old != tip:
            _may_move(guest, ref, old, tip, target)
            _keep(guest)
            moves = f"update {ref} {tip} {old or '0' * 40}\nupdate {_OURS}/{target} {tip}\n"
            guest.repository.git("update-ref", "-m", "banger: pull", "--create-reflog", "--stdin", input=moves.encode())
        return Pulled(
            branch=target, commit=tip, commits=len(guest.commits), uncommitted=uncommitted, changed=old != tip
        )


def patch(enter: Enter, host: Path, path: str, progress: Progress | None = None) -> bytes:
    """What was done in the guest since it was shipped to, as one patch for `git apply`; empty if nothing was."""
    with brought(enter, host, path, progress) as guest:
        old = guest.base or (guest.head if guest.head != NONE else guest.git("mktree", input=b"").decode().strip())
        return difference(guest, old, guest.files)


def difference(guest: Brought, old: str, new: str, *more: str) -> bytes:
    """The difference of two trees as text that git can apply; nobody's settings shape it."""
    shape = ("--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames")
    return guest.git("diff-tree", "-r", "-p", *shape, "--src-prefix=a/", "--dst-prefix=b/", *more, old, new)


def _tip(guest: Brought, uncommitted: Sequence[str], vm: str, old: str) -> str:
    if not uncommitted:
        return guest.head
    repository = guest.repository
    parent = guest.head if guest.head != NONE else ""
    words = ("rev-parse", "-q", "--verify")
    if old and repository.ask(*words, f"{old}^{{tree}}") == guest.files and repository.ask(*words, f"{old}^") == parent:
        return old  # brought before
    name, email = repository.identity
    who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), name or "banger")
    who |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), email or "banger@localhost")
    message = f"{_UNCOMMITTED} {vm}"
    parents = ["-p", parent] if parent else []
    made = repository.git(
        "commit-tree", "--no-gpg-sign", *parents, "-m", message, guest.files, objects=guest.store, more=who
    )
    return made.stdout.decode().strip()


def _may_move(guest: Brought, ref: str, old: str, tip: str, target: str) -> None:
    """A branch moves if it only grows, or if its last commit is what the last pull put there."""
    repository = guest.repository
    # Each worktree is a group of lines, one of which may be its branch.
    listing = repository.git("worktree", "list", "--porcelain").stdout.decode("utf-8", "replace")
    if f"branch {ref}" in listing.splitlines():
        raise BangerError(
            f"the branch {target} is checked out", hint="switch to another one, or pull with --branch NAME"
        )
    if not old or repository.ask("rev-parse", "-q", "--verify", f"{_OURS}/{target}") == old:
        return
    grown = repository.git("merge-base", "--is-ancestor", old, tip, check=False, objects=guest.store)
    if grown.returncode != 0:
        raise BangerError(
            f"the branch {target} has commits that the guest has not, so it stays as it is",
            hint="pull with --branch NAME, or rename it",
        )


def _keep(guest: Brought) -> None:
    """Moves the checked objects to the repository's; the index of a pack last, by which it counts."""
    for folder in sorted(guest.store.iterdir()):
        if folder.name == "info":
            continue
        target = guest.repository.objects / folder.name
        target.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: (file.suffix == ".idx", file.name)):
            if file.suffix in (".pack", ".idx", ".rev", ""):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                file.replace(target / file.name)


def _ref(repository: Repository, branch: str) -> str:
    ref = f"refs/heads/{branch}"
    if repository.git("check-ref-format", "--branch", branch, check=False).returncode != 0:
        raise BangerError(f"{branch!r} cannot be the name of a branch", hint="git help check-ref-format")
    return ref


def _has(repository: Repository, commit: str) -> bool:
    return commit == NONE or repository.ask("cat-file", "-t", commit) == "commit"


def _common(repository: Repository, facts: Facts) -> list[str]:
    names = {facts.head, *facts.refs.values(), *([facts.pushed.head] if facts.pushed else [])} - {NONE}
    return sorted(name for name in names if _has(repository, name))


def _writable(repository: Repository) -> Path:
    if not os.access(repository.objects, os.W_OK):
        raise BangerError(f"{repository.objects} cannot be written to", hint=f"ls -ld {repository.objects}")
    return repository.objects


def _name(word: str) -> str:
    """An object's name as the guest sent it, which is about to be a word of a command line."""
    if word != NONE and not (len(word) in (40, 64) and all(c in "0123456789abcdef" for c in word)):
        raise BangerError("the guest answered with nonsense instead of an object's name")
    return word
