"""One connection to the guest's side: what it says of itself, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources

from reconciler.lib.converse import Conversation, converse
from reconciler.lib.errors import BangerError
from reconciler.workspace.git import unquoted
from reconciler.workspace.snapshot import NONE

Enter = Callable[[Sequence[str]], list[str]]
"""A command of the guest to the command line that runs it there, with its input and output passed on."""

_GREETING = "banger-workspace 1"
_CHATTER = 64
"""Lines that a guest's login may say before our script does."""


class Place(StrEnum):
    """What lies where the workspace is to be."""

    ABSENT = "absent"
    EMPTY = "empty"
    REPOSITORY = "repository"
    FOREIGN = "foreign"
    """A folder with something in it that is no repository."""
    FILE = "file"

    @property
    def free(self) -> bool:
        return self in (Place.ABSENT, Place.EMPTY)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A state as the guest remembers it: the snapshot, its HEAD, and the trees of its index and of its files."""

    commit: str
    head: str
    index: str
    files: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a guest's repository is, at the price of a connection.

    Parameters
    ----------
    git: the guest's git, or empty without one.
    pushed: what was shipped last; incoming: what was being shipped when something ended that.
    busy: what goes on in it, as a word of guest.sh. refs: branch → commit.
    """

    git: str
    place: Place
    head: str = NONE
    branch: str = NONE
    pushed: Shipped | None = None
    incoming: Shipped | None = None
    busy: tuple[str, ...] = ()
    refs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What was done in the guest since what was shipped last (or, without that, since its HEAD).

    Parameters
    ----------
    tree: the files, less those that git does not track.
    changes: path → letter, mode and object. half: paths that differ from what was being shipped; None if nothing was.
    staged: paths whose content is in the index, and neither in what was shipped nor in HEAD nor in the files.
    unmerged: whether there are conflicts. untracked: files that git neither tracks nor ignores.
    ahead: commits since; None where nothing was shipped.
    """

    tree: str
    changes: dict[str, tuple[str, str, str]]
    half: frozenset[str] | None = None
    staged: tuple[str, ...] = ()
    unmerged: bool = False
    untracked: tuple[str, ...] = ()
    ahead: int | None = None


class Guest:
    """The other end, while the connection lasts. `facts` were read at its beginning."""

    def __init__(self, conversation: Conversation) -> None:
        self._talk = conversation
        self.facts = self._facts()

    @property
    def talk(self) -> Conversation:
        return self._talk

    def answer(self) -> tuple[str, str]:
        """The next line as its first word and the rest. BangerError for what the guest could not do."""
        key, _, rest = self._talk.line().partition(" ")
        if key == "error":
            raise BangerError(f"in the guest: {rest}", hint="git status there says more; nothing was overwritten")
        return key, rest

    def files(self) -> Files:
        """Has the guest look at its files."""
        self._talk.say("state")
        lists: dict[str, list[str]] = {}
        while (line := self.answer())[0] != "end":
            lists.setdefault(line[0], []).append(line[1])

        def names(key: str) -> list[str]:
            return [unquoted(name) for name in lists.get(key, ())]

        staged = set(names("staged")) & set(names("stagednotfile")) & set(names("stagednothead"))
        if "half" in lists:
            staged &= set(names("stagednothalf"))
        return Files(
            tree=lists["tree"][0],
            changes=dict(map(_change, lists.get("change", ()))),
            half=frozenset(name for name in names("half") if name) if "half" in lists else None,
            staged=tuple(sorted(staged)),
            unmerged="unmerged" in lists.get("busy", ()),
            untracked=tuple(names("untracked")),
            ahead=int(lists["ahead"][0]) if "ahead" in lists else None,
        )

    def has(self, objects: Sequence[str]) -> set[str]:
        """Those of the objects that the guest has."""
        self._talk.say("ask", *objects, "end")
        found = set()
        while (line := self.answer())[0] != "end":
            if line[0] == "has":
                found.add(line[1])
        return found

    def _facts(self) -> Facts:
        for _ in range(_CHATTER):
            if self._talk.line() == _GREETING:
                break
        else:
            raise BangerError("the guest's shell says too much before it does what it is asked")
        values: dict[str, str] = {}
        busy, refs = [], {}
        while (line := self.answer())[0] != "end":
            key, rest = line
            if key == "busy":
                busy.append(rest)
            elif key == "ref":
                commit, _, name = rest.partition(" ")
                refs[name.removeprefix("refs/heads/")] = commit
            else:
                values[key] = rest
        return Facts(
            git="" if values["git"] == "none" else values["git"],
            place=Place(values["state"]),
            head=values.get("head", NONE),
            branch=values.get("branch", NONE),
            pushed=_shipped(values.get("pushed")),
            incoming=_shipped(values.get("incoming")),
            busy=tuple(busy),
            refs=refs,
        )


@contextmanager
def connected(enter: Enter, path: str) -> Iterator[Guest]:
    """Talks to the guest about the repository at `path`. BangerError if it cannot be entered."""
    script = resources.files(__package__).joinpath("guest.sh").read_text(encoding="utf-8")
    with converse(enter(["sh", "-c", script, "banger", path])) as conversation:
        try:
            yield Guest(conversation)
        except (KeyError, ValueError, IndexError) as problem:
            raise BangerError(f"the guest answered with nonsense: {problem}") from problem


def _change(line: str) -> tuple[str, tuple[str, str, str]]:
    """`:100644 100644 <old> <new> M\\tpath` as path → letter, mode, object."""
    meta, _, path = line.partition("\t")
    _, mode, _, name, letter = meta.split()
    return unquoted(path), (letter[:1], mode, name)


def _shipped(text: str | None) -> Shipped | None:
    if text is None:
        return None
    commit, head, index, files = text.split()
    return Shipped(commit, head, index, files)
