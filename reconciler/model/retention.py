"""The retention policy of a file, what the cache holds, and what becomes of each entry. Pure.

Entries, roots and verdicts are tuples rather than dataclasses: a cache may hold a hundred thousand blobs, and all of
them are weighed in every pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

DAY = 86_400.0


class EntryKind(StrEnum):
    """The kinds of things that pile up."""

    BLOB = "blob"
    IMAGE = "image"
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    TEMPLATE = "template"
    TOOLS = "tools"
    STAGING = "staging"
    """What somebody is making this moment. What killed processes left goes by itself (`SweepStaging`), not by a rule."""
    TRASH = "trash"

    @property
    def made_again(self) -> bool:
        """Whether losing it costs time only. What is not is a user's data: it goes by a rule of its own or not at all."""
        return self is not EntryKind.TRASH

    @property
    def ruled(self) -> bool:
        """Whether a rule can be about it."""
        return self is not EntryKind.STAGING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What becomes of the entries that it is the first to match.

    Parameters
    ----------
    name: a pattern in the manner of fnmatch(3) for the entry's name.
    newest: of all that it matches, so many of those that were made last are kept.
    unused_for: seconds after their last use that the others go; None for never by age alone.
    """

    kind: EntryKind
    name: str = "*"
    newest: int = 0
    unused_for: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When there is too much. Bytes; `min_free_part` is of the file system, from 0 to 1. None for no such limit."""

    max_used: int | None = None
    min_free: int | None = None
    min_free_part: float | None = None
    reserved: int = 0

    def most(self, used: int, free: int, total: int) -> int | None:
        """Bytes that the cache may have; None for any."""
        found = [] if self.max_used is None else [self.max_used]
        if self.min_free is not None:
            found.append(used + free - self.min_free)
        if self.min_free_part is not None:
            found.append(used + free - int(self.min_free_part * total))
        return max(0, min(found)) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """Parts of the limit, from 0 to 1: above `start` entries go until no more than `stop` is left."""

    start: float = 0.9
    stop: float = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """What holds whatever the rules say.

    Parameters
    ----------
    min_age: seconds for which an entry is kept after it was made or used.
    max_delete: the part of each kind's entries, from 0 to 1, that goes within a day; one can always go.
    """

    min_age: float = 600.0
    max_delete: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """The section `cache` of a file. Without a rule that matches it, nothing goes."""

    limits: Limits = field(default_factory=Limits)
    watermarks: Watermarks = field(default_factory=Watermarks)
    safety: Safety = field(default_factory=Safety)
    rules: tuple[Rule, ...] = ()


class SharedFile(NamedTuple):
    """A file that has names outside of its entry too: its bytes come free with the last of them.

    `links` is how many names it has in all, `here` how many in the entry.
    """

    inode: str
    size: int
    links: int
    here: int


class Entry(NamedTuple):
    """One thing that piles up. Times in seconds since the epoch, `size` in allocated bytes without `shared`.

    `environment` is whose trash it is, or None for what is shared; `protected` that its VM was.
    """

    kind: EntryKind
    name: str
    size: int
    made_at: float
    used_at: float
    shared: tuple[SharedFile, ...] = ()
    environment: str | None = None
    protected: bool = False

    @property
    def key(self) -> str:
        return f"{self.kind.value}/{self.name}"

    @property
    def total(self) -> int:
        """Bytes of all its files."""
        return self.size + sum(file.size for file in self.shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCache:
    """The cache and the trash as they are now.

    Parameters
    ----------
    roots: key of an entry → what needs it.
    used: bytes that the cache takes, what is shared counted once; without the trash, which is no part of it.
    free, total: bytes of the file system that the cache lies on.
    spent: kind → how many of its entries were evicted within the last day.
    now: when all this was so, by the wall clock.
    """

    entries: tuple[Entry, ...] = ()
    roots: Mapping[str, str] = field(default_factory=dict)
    used: int = 0
    free: int = 0
    total: int = 0
    spent: Mapping[str, int] = field(default_factory=dict)
    now: float = 0.0


class Verdict(NamedTuple):
    """What becomes of an entry, and why.

    `rule` is the place in the file that says so, or what stands above every rule; `frees` how many bytes really come
    free, 0 for what is kept.
    """

    entry: Entry
    evict: bool
    rule: str
    reason: str
    frees: int = 0


class Eviction(NamedTuple):
    """One entry that is to go. `used_at` is when it was used last as far as was seen: used since, it stays."""

    kind: EntryKind
    name: str
    rule: str
    reason: str
    frees: int
    used_at: float

    @property
    def key(self) -> str:
        return f"{self.kind.value}/{self.name}"
