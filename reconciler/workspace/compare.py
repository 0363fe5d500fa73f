"""What a push would cost the guest: decided here, from what both sides have, before anything is changed. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.lib.errors import BangerError
from reconciler.workspace.snapshot import NONE
from reconciler.workspace.wire import Facts, Files, Place

_SHOWN = 10
_BUSY = {
    "merge": "a merge is under way there",
    "rebase": "a rebase is under way there",
    "cherry-pick": "a cherry-pick is under way there",
    "revert": "a revert is under way there",
    "lock": "another git command runs there, or was killed (remove .git/index.lock then)",
    "unmerged": "there are conflicts that nobody has resolved",
}

Entries = Callable[[set[str]], Mapping[str, tuple[str, str]]]
"""Paths to mode and object in what is to be shipped; one that is not in it is left out."""


class UnpushedWorkError(BangerError):
    """The guest has work of its own, which a push would overwrite."""

    def __init__(self, path: str, lost: tuple[str, ...], *, vm: str) -> None:
        shown = "; ".join(lost[:_SHOWN]) + (f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        super().__init__(
            f"{path} in the guest has work of its own, so nothing was shipped: {shown}",
            hint=f"`banger workspace pull {vm}` brings it here; `banger workspace push --force {vm}` replaces it (and "
            "keeps it in the guest below refs/banger/replaced)",
        )
        self.lost = lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is in the way. `fatal` cannot be forced, `lost` can."""

    fatal: str | None = None
    lost: tuple[str, ...] = ()


def place_problem(facts: Facts, path: str) -> str | None:
    """Why nothing can be shipped to where it is to be, whatever is there; None if it can."""
    match facts.place:
        case Place.FILE:
            return f"{path} in the guest is not a folder"
        case Place.FOREIGN:
            return f"{path} in the guest is a folder with other things in it"
        case _:
            return None


def weigh(
    facts: Facts, files: Files, entries: Entries, known: Callable[[str], bool], *, branch: str, head: str
) -> Verdict:
    """What a push would lose.

    Parameters
    ----------
    entries: what is to be shipped. known: whether the host has a commit in one of its branches or tags.
    branch, head: of what is to be shipped.
    """
    busy = [_BUSY.get(word, word) for word in facts.busy]
    if busy:
        return Verdict(fatal="; ".join(busy))
    if files.unmerged:
        return Verdict(fatal=_BUSY["unmerged"])
    lost = []
    pushed_head = facts.pushed.head if facts.pushed else None
    if facts.head not in (NONE, pushed_head, head) and not known(facts.head):
        lost.append(_commits(facts, files))
    there = facts.refs.get(branch, NONE)
    if branch not in (NONE, facts.branch) and there not in (NONE, pushed_head, head) and not known(there):
        lost.append(f"its branch {branch} has commits that are not here")
    lost += [f"{_WORDS.get(letter, 'changed')} {path}" for path, letter in own_changes(files, entries).items()]
    lost += [f"staged, and changed again since: {path}" for path in files.staged]
    return Verdict(lost=tuple(lost))


_WORDS = {"M": "changed", "A": "added", "D": "deleted", "T": "changed"}


def own_changes(files: Files, entries: Entries) -> dict[str, str]:
    """Path → letter, of what was done in the guest, and neither is what is to be shipped nor was about to be."""
    target = entries(set(files.changes))
    return {
        path: letter
        for path, (letter, mode, name) in files.changes.items()
        if (files.half is None or path in files.half)
        and (path in target if letter == "D" else target.get(path) != (mode, name))
    }


def _commits(facts: Facts, files: Files) -> str:
    number = f"{files.ahead} commit(s)" if files.ahead else "commits"
    on = f" on {facts.branch}" if facts.branch != NONE else ""
    return f"{number}{on} that are not here, the last one {facts.head[:12]}"
