"""How the two sides stand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reconciler.workspace.compare import own_changes, place_problem, weigh
from reconciler.workspace.git import Repository
from reconciler.workspace.push import Request, known_for_good
from reconciler.workspace.snapshot import NONE, Snapshot, taken
from reconciler.workspace.wire import Enter, Facts, Files, Guest, Place, connected


class Standing(StrEnum):
    """What one would do next."""

    SAME = "same"
    ABSENT = "absent"
    """The guest has no copy yet."""
    STALE = "stale"
    """The host has changed since: push."""
    AHEAD = "ahead"
    """The guest has work of its own: pull."""
    DIVERGED = "diverged"
    """Both."""
    BLOCKED = "blocked"
    """Something lies or goes on there that has to be finished first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One repository. `changes` counts paths that differ from its HEAD (host), or from what was shipped (guest).

    commits: that the other side does not have; None if that is not known.
    """

    path: str
    head: str
    branch: str
    commits: int | None = None
    changes: int = 0
    untracked: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "head": None if self.head == NONE else self.head,
            "branch": None if self.branch == NONE else self.branch,
            "commits": self.commits,
            "changes": self.changes,
            "untracked": self.untracked,
        }

    def __str__(self) -> str:
        name = self.branch if self.branch != NONE else "detached"
        more = [f"{self.commits} ahead"] if self.commits else []
        more += [f"{self.changes} changed"] if self.changes else []
        more += [f"{self.untracked} untracked"] if self.untracked else []
        at = f"{name} {self.head[:9]}" if self.head != NONE else f"{name}, no commit"
        return at + (f" ({', '.join(more)})" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Both sides, and what is to be said about them. `pushed` is the commit that was HEAD at the last push."""

    standing: Standing
    host: Side
    guest: Side | None = None
    pushed: str | None = None
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.standing.value,
            "stale": self.standing in (Standing.STALE, Standing.DIVERGED, Standing.ABSENT),
            "host": self.host.to_json(),
            "guest": self.guest.to_json() if self.guest else None,
            "pushed": self.pushed,
            "message": self.message,
        }


def behind(enter: Enter, request: Request) -> bool:
    """Whether the guest's copy lacks something that is here, at the price of a connection: its files are not looked at.

    False while nothing was shipped yet. BangerError if one of the sides cannot be read.
    """
    with taken(request.host, untracked=request.untracked) as snapshot, connected(enter, request.guest) as guest:
        facts = guest.facts
        guest.talk.say("quit")
        return facts.place is Place.REPOSITORY and _stale(facts, snapshot)


def _stale(facts: Facts, snapshot: Snapshot) -> bool:
    return facts.pushed is None or facts.pushed.commit != snapshot.commit or facts.incoming is not None


def look(enter: Enter, request: Request) -> Report:
    """Looks at both sides; changes neither. BangerError if one of them cannot be read."""
    with taken(request.host, untracked=request.untracked) as snapshot, connected(enter, request.guest) as guest:
        report = _report(snapshot, guest, request)
        guest.talk.say("quit")
    return report


def _report(snapshot: Snapshot, guest: Guest, request: Request) -> Report:
    facts = guest.facts
    untracked = sum(letter == "?" for letter in snapshot.changes.values())
    host = Side(
        path=str(request.host),
        head=snapshot.head,
        branch=snapshot.branch,
        commits=_count(snapshot.repository, facts.pushed.head if facts.pushed else facts.head, snapshot.head),
        changes=len(snapshot.changes) - untracked,
        untracked=untracked,
    )
    if problem := place_problem(facts, request.guest):
        return Report(standing=Standing.BLOCKED, host=host, message=problem)
    if facts.place is not Place.REPOSITORY:
        return Report(standing=Standing.ABSENT, host=host, message="nothing was shipped yet")
    if not facts.git:
        return Report(standing=Standing.BLOCKED, host=host, message="the guest has no git")
    files = guest.files()
    verdict = weigh(
        facts,
        files,
        snapshot.entries,
        lambda commit: known_for_good(snapshot.repository, commit),
        branch=snapshot.branch,
        head=snapshot.head,
    )
    stale = _stale(facts, snapshot)
    ahead = bool(verdict.lost) or bool(facts.pushed and facts.head != facts.pushed.head and files.ahead)
    if verdict.fatal:
        standing, message = Standing.BLOCKED, verdict.fatal
    elif ahead and stale:
        standing, message = Standing.DIVERGED, "both sides have changed: pull, then merge"
    elif ahead:
        standing, message = Standing.AHEAD, "the guest has work of its own: pull"
    elif stale:
        standing, message = Standing.STALE, "the host has changed: push"
    else:
        standing, message = Standing.SAME, ""
    return Report(
        standing=standing,
        host=host,
        guest=_guest_side(guest, files, snapshot, request),
        pushed=facts.pushed.head if facts.pushed and facts.pushed.head != NONE else None,
        message=message,
    )


def _guest_side(guest: Guest, files: Files, snapshot: Snapshot, request: Request) -> Side:
    return Side(
        path=request.guest,
        head=guest.facts.head,
        branch=guest.facts.branch,
        commits=files.ahead,
        changes=len(own_changes(files, snapshot.entries)),
        untracked=len(files.untracked),
    )


def _count(repository: Repository, old: str, new: str) -> int | None:
    if NONE in (old, new):
        return None
    count = repository.ask("rev-list", "--count", new, f"^{old}")
    return int(count) if count else None
