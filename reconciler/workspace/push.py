"""Host to guest: what has changed since, and never over what was done there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.lib.errors import BangerError
from reconciler.lib.progress import Progress, Silent
from reconciler.workspace.compare import UnpushedWorkError, Verdict, place_problem, weigh
from reconciler.workspace.git import Repository
from reconciler.workspace.snapshot import NONE, Snapshot, taken
from reconciler.workspace.wire import Enter, Facts, Guest, Place, connected

_MOST_ASKED = 5000
"""Changed files that the guest is asked about one by one; of more, all are sent."""
_MOST_TAGS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be shipped to where. `vm` is how a user calls the guest."""

    host: Path
    guest: str
    vm: str
    untracked: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did, or would do. `parts` are the submodules', by path; `sent` false if there was nothing to do.

    commits: how many the guest lacked; None if it lacked all. changes: as of the snapshot, what differs from HEAD.
    """

    snapshot: str
    head: str
    branch: str
    sent: bool
    first: bool = False
    commits: int | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: Mapping[str, Pushed] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        return self.sent or any(part.anything for part in self.parts.values())


def push(enter: Enter, request: Request, progress: Progress | None = None, *, dry_run: bool = False) -> Pushed:
    """Ships a repository, with its submodules, or says what would be shipped.

    Raises UnpushedWorkError if the guest has work of its own; nothing is changed then, in no submodule either.
    """
    progress = progress or Silent()
    progress.update(None, "looking at the files")
    with taken(request.host, untracked=request.untracked) as snapshot:
        parts = dict(_parts(snapshot, request))
        # All of them are asked before one is changed.
        looks = {path: push(enter, part, dry_run=True) for path, part in parts.items()}
        if looks and not dry_run:
            _send(enter, request, snapshot, progress, dry_run=True)
        own = _send(enter, request, snapshot, progress, dry_run=dry_run)
        done = {
            path: look if dry_run or not look.anything else push(enter, parts[path], progress)
            for path, look in looks.items()
        }
    return dataclasses.replace(own, parts=done)


def ship_first(enter: Enter, request: Request, progress: Progress) -> None:
    """Ships a repository that the guest does not have yet, and leaves one alone that was shipped before."""
    progress.update(None, "asking the guest")
    with connected(enter, request.guest) as guest:
        there = guest.facts.pushed is not None and guest.facts.incoming is None
        guest.talk.say("quit")
    if not there:
        push(enter, request, progress)


def _parts(snapshot: Snapshot, request: Request) -> Iterator[tuple[str, Request]]:
    for path in snapshot.submodules:
        host, guest = snapshot.repository.root / path, f"{request.guest}/{path}"
        yield path, Request(host=host, guest=guest, vm=request.vm, untracked=request.untracked, force=request.force)


def _send(enter: Enter, request: Request, snapshot: Snapshot, progress: Progress, *, dry_run: bool) -> Pushed:
    progress.update(None, "asking the guest")
    with connected(enter, request.guest) as guest:
        facts = guest.facts
        if problem := place_problem(facts, request.guest):
            raise BangerError(problem, hint="choose another `guest` path, or move that away")
        if not facts.git and facts.place is Place.REPOSITORY and _differs(facts, snapshot):
            raise BangerError(
                "the guest has no git, so it cannot be told what would be lost there", hint="install git in its image"
            )
        unchanged = facts.pushed is not None and facts.pushed.commit == snapshot.commit and facts.incoming is None
        result = Pushed(
            snapshot=snapshot.commit,
            head=snapshot.head,
            branch=snapshot.branch,
            sent=not unchanged,
            first=facts.pushed is None,
            commits=_missing(snapshot, facts),
            changes=snapshot.changes,
            notes=snapshot.notes,
        )
        if not unchanged and facts.place is Place.REPOSITORY and facts.git:
            _check(guest, request, snapshot)
        if unchanged or dry_run:
            guest.talk.say("quit")
            return result
        progress.update(None, "sending")
        if not facts.git:
            return _carry(guest, request, result)
        return _deliver(guest, request, snapshot, result, progress)


def _differs(facts: Facts, snapshot: Snapshot) -> bool:
    return facts.pushed is None or facts.pushed.commit != snapshot.commit


def _carry(guest: Guest, request: Request, result: Pushed) -> Pushed:
    """The first copy for a guest without git: made here as a guest's would be, and sent as one archive."""
    with TemporaryDirectory(prefix="banger-workspace-") as scratch:
        made = Path(scratch) / "copy"
        here = Request(
            host=request.host, guest=str(made), vm=request.vm, untracked=request.untracked, force=request.force
        )
        push(lambda words: ["env", "-i", f"PATH={os.environ.get('PATH', os.defpath)}", "HOME=/", *words], here)
        guest.talk.say("unpack")
        guest.talk.pour(["tar", "--owner=0", "--group=0", "-C", made, "-c", "-f", "-", "."], input=b"")
        guest.answer()
    note = "the guest has no git: it has everything, but later changes cannot be sent"
    return dataclasses.replace(result, sent=True, notes=(*result.notes, note))


def _check(guest: Guest, request: Request, snapshot: Snapshot) -> None:
    facts, files = guest.facts, guest.files()
    verdict: Verdict = weigh(
        facts,
        files,
        snapshot.entries,
        lambda commit: known_for_good(snapshot.repository, commit),
        branch=snapshot.branch,
        head=snapshot.head,
    )
    if verdict.fatal is not None:
        raise BangerError(
            f"{request.guest} in the guest cannot be changed now: {verdict.fatal}",
            hint="finish that in the guest first",
        )
    if verdict.lost and not request.force:
        raise UnpushedWorkError(request.guest, verdict.lost, vm=request.vm)


def known_for_good(repository: Repository, commit: str) -> bool:
    """Whether the host has a commit for good: in HEAD, a branch or a tag."""
    if repository.ask("cat-file", "-t", commit) != "commit":
        return False
    return bool(
        repository.ask("for-each-ref", "--count=1", "--contains", commit, "--format=%(refname)")
        or repository.git("merge-base", "--is-ancestor", commit, "HEAD", check=False).returncode == 0
    )


def _deliver(guest: Guest, request: Request, snapshot: Snapshot, result: Pushed, progress: Progress) -> Pushed:
    repository, facts = snapshot.repository, guest.facts
    revisions = [snapshot.commit]
    if facts.place is Place.REPOSITORY:
        revisions += [f"^{name}" for name in _common(snapshot, guest)]
    tags = _tags(repository, snapshot.head)
    revisions += [name for name, _ in tags]
    name, email = repository.identity
    lines = [f"user {name}"] if name.isprintable() and name else []
    lines += [f"email {email}"] if email.isprintable() and email else []
    lines += [f"tag {commit} {tag}" for commit, tag in tags]
    if repository.shallow:
        path = repository.objects.parent / "shallow"
        lines += [f"shallow {line}" for line in path.read_text().split()]
    force = "1" if request.force else "0"
    target = (snapshot.commit, snapshot.head, snapshot.branch, snapshot.index, snapshot.files, force)
    guest.talk.say(f"go {' '.join(target)}", *lines, "pack")
    packing = repository.argv("pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q")
    env = repository.env(objects=snapshot.store)
    guest.talk.pour(packing, input="".join(f"{line}\n" for line in revisions).encode(), env=env)
    return _await(guest, request, result, progress)


def _await(guest: Guest, request: Request, result: Pushed, progress: Progress) -> Pushed:
    collisions: list[str] = []
    notes = list(result.notes)
    while True:
        try:
            key, rest = guest.answer()
        except BangerError:
            if collisions:
                words = tuple(f"untracked {path}" for path in collisions)
                raise UnpushedWorkError(request.guest, words, vm=request.vm) from None
            raise
        match key:
            case "collision":
                collisions.append(rest)
            case "step":
                progress.update(None, "checking out")
            case "kept":
                notes.append(f"what was replaced is kept in the guest as commit {rest[:12]}")
            case "done":
                return dataclasses.replace(result, sent=True, notes=tuple(notes))


def _common(snapshot: Snapshot, guest: Guest) -> list[str]:
    """What both sides have, to be left out: commits of the guest, and those changed files that it got before."""
    facts, repository = guest.facts, snapshot.repository
    heads = {facts.head, *facts.refs.values(), *([facts.pushed.head] if facts.pushed else [])} - {NONE}
    found = []
    if heads:
        listing = repository.git("cat-file", "--batch-check", input="\n".join(sorted(heads)).encode())
        found = [words[0] for line in listing.stdout.decode().splitlines() if (words := line.split())[1] == "commit"]
    paths = [path for path, letter in snapshot.changes.items() if letter != "D"]
    if 0 < len(paths) <= _MOST_ASKED:
        blobs = {name for mode, name in snapshot.entries(set(paths)).values() if mode != "160000"}
        found += sorted(guest.has(sorted(blobs)))
    return found


def _missing(snapshot: Snapshot, facts: Facts) -> int | None:
    """How many commits of HEAD the guest lacks; None if it has none of them."""
    there = {facts.head, *([facts.pushed.head] if facts.pushed else [])} - {NONE}
    had = [name for name in sorted(there) if snapshot.repository.ask("cat-file", "-t", name) == "commit"]
    if snapshot.head == NONE or not had:
        return None
    count = snapshot.repository.ask("rev-list", "--count", snapshot.head, *(f"^{name}" for name in had))
    return int(count) if count else None


def _tags(repository: Repository, head: str) -> list[tuple[str, str]]:
    """Object and name of the tags in the history of HEAD, the newest of very many."""
    if head == NONE:
        return []
    words = ("for-each-ref", f"--merged={head}", f"--count={_MOST_TAGS}", "--sort=-creatordate")
    listing = os.fsdecode(repository.git(*words, "--format=%(objectname) %(refname:strip=2)", "refs/tags").stdout)
    return [(name, tag) for name, _, tag in (line.partition(" ") for line in listing.splitlines())]
