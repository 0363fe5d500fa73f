"""What becomes of each entry of the cache and the trash. Pure: the clock is part of what was observed.

In this order, and the first that applies is the answer:

1. What something needs is kept, whatever a rule says.
2. What no rule matches is kept, and so is other environments' trash.
3. What was made or used a moment ago is kept, and so are the newest of what a rule matches.
4. What was not used for as long as its rule says goes.
5. While the cache is above its upper watermark, what is left of the matched goes, least recently used first, down to
   the lower one. The trash does not: it is a user's data, and goes by its time alone.
6. Of each kind only so much goes within a day, the least recently used first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from itertools import groupby
from operator import attrgetter

from reconciler.lib.bulk import no_collection
from reconciler.lib.units import format_duration
from reconciler.model.retention import CachePolicy, Entry, EntryKind, ObservedCache, Rule, Verdict

SAFETY = "cache.safety"
LIMITS = "cache.limits"
NEEDED = "needed"
UNMATCHED = "unmatched"
_PRESSED = "the cache is near its limit, and it was not used for the longest time"
_ROUNDING = 1e-9  # 29% of 100 are 29 of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """A verdict on every entry, in the order of the entries, and what is left over.

    Parameters
    ----------
    used: bytes that the cache takes once all of it is done.
    limit: bytes that it may take; None for any.
    pressed: whether it is above its upper watermark then, because the rest is needed or held back.
    capped: how many entries stay only because enough of their kind went within a day.
    """

    verdicts: tuple[Verdict, ...]
    used: int
    limit: int | None = None
    pressed: bool = False
    capped: int = 0

    @property
    def evicted(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.evict)

    @property
    def frees(self) -> int:
        return sum(verdict.frees for verdict in self.verdicts)


def judge(policy: CachePolicy, seen: ObservedCache, environment: str, roots: Mapping[str, str]) -> Retention:
    """Judges every entry.

    Parameters
    ----------
    environment: whose policy it is; of the trash, only its own entries are.
    roots: key → what needs the entry: those that were seen, and those that the plan is for.
    """
    with no_collection():
        court = _Court(policy, seen, environment)
        for kind in EntryKind:
            court.hear(kind, roots)
        used = court.expire(seen.used)
        limit = policy.limits.most(seen.used, seen.free, seen.total)
        pressed = False
        if limit is not None:
            marks, reserved = policy.watermarks, policy.limits.reserved
            start = max(int(limit * marks.start), reserved)
            if used > start:
                used = court.press(used, max(int(limit * marks.stop), reserved))
            pressed = used > start
        return Retention(verdicts=court.verdicts(), used=used, limit=limit, pressed=pressed, capped=court.capped)


class _Kind:
    """What is counted for one kind. `left` is how many may still go today: a part of what there was, rounded up."""

    __slots__ = ("held", "left", "made_again", "value")

    def __init__(self, kind: EntryKind, count: int, spent: int, part: float) -> None:
        self.value = kind.value
        self.made_again = kind.made_again
        self.left = max(0, math.ceil(part * (count + spent) - _ROUNDING) - spent)
        self.held = f"no more than {part:.0%} of its kind go within a day"


class _Rule:
    """A rule, with all that is the same for each entry that it matches."""

    __slots__ = ("age", "kind", "matches", "newest", "place", "reason")

    def __init__(self, number: int, rule: Rule, kind: _Kind) -> None:
        self.kind = kind
        self.place = f"cache.rules[{number}]"
        self.age = rule.unused_for
        self.newest = rule.newest
        self.reason = "" if rule.unused_for is None else f"not used for {format_duration(rule.unused_for)}"
        self.matches = None if rule.name == "*" else re.compile(translate(rule.name)).match


_Case = tuple[float, str, int, _Rule]
"""An entry that may go: when it was used last, its name and its index, which sort it; and its rule."""


class _Court:
    """Goes through the entries once, then through those that may go, in the order in which they would."""

    def __init__(self, policy: CachePolicy, seen: ObservedCache, environment: str) -> None:
        self._entries = seen.entries
        self._now = seen.now
        self._environment = environment
        self._min_age = policy.safety.min_age
        self._by_kind: dict[str, list[int]] = {kind.value: [] for kind in EntryKind}
        at = 0
        for kind, run in groupby(seen.entries, key=attrgetter("kind")):
            end = at + sum(1 for _ in run)
            self._by_kind[kind.value].extend(range(at, end))
            at = end
        part = policy.safety.max_delete
        kinds = {kind: _Kind(kind, self._count(kind), seen.spent.get(kind.value, 0), part) for kind in EntryKind}
        self._rules: dict[str, list[_Rule]] = {kind.value: [] for kind in EntryKind}
        for number, rule in enumerate(policy.rules):
            self._rules[rule.kind.value].append(_Rule(number, rule, kinds[rule.kind]))
        self._found: list[Verdict | None] = [None] * len(seen.entries)
        self._expired: list[_Case] = []
        self._spare: list[_Case] = []
        self._links: Counter[str] = Counter()
        self.capped = 0

    def _count(self, kind: EntryKind) -> int:
        """How many of a kind are for this policy to judge."""
        indexes = self._by_kind[kind.value]
        if kind.made_again:
            return len(indexes)
        return sum(1 for index in indexes if self._entries[index].environment == self._environment)

    def hear(self, kind: EntryKind, roots: Mapping[str, str]) -> None:
        """Settles those that stay in any case, and sorts the others by whether their time has come."""
        rules, prefix = self._rules[kind.value], f"{kind.value}/"
        shared, now, min_age = kind.made_again, self._now, self._min_age
        entries, found, expired, spare = self._entries, self._found, self._expired, self._spare
        indexes = self._by_kind[kind.value]
        newest = self._newest(indexes, rules, shared) if any(rule.newest for rule in rules) else frozenset()
        only = rules[0] if rules and rules[0].matches is None else None
        for index in indexes:
            entry = entries[index]
            if roots and (why := roots.get(prefix + entry.name)) is not None:
                found[index] = Verdict(entry, False, NEEDED, why)
                continue
            if not shared and entry.environment != self._environment:
                whose = f"environment {entry.environment}" if entry.environment else "an environment that is not known"
                found[index] = Verdict(entry, False, UNMATCHED, f"it is the trash of {whose}")
                continue
            rule = only or self._first(rules, entry.name)
            if rule is None:
                found[index] = Verdict(entry, False, UNMATCHED, "no rule matches it")
                continue
            used = entry.used_at
            if now - (used if used > entry.made_at else entry.made_at) < min_age:
                found[index] = Verdict(entry, False, f"{SAFETY}.minAge", "it was used a moment ago")
            elif index in newest:
                found[index] = Verdict(entry, False, rule.place, f"one of the newest {rule.newest}")
            elif rule.age is not None and now - used >= rule.age:
                expired.append((used, entry.name, index, rule))
            else:
                spare.append((used, entry.name, index, rule))

    def _newest(self, indexes: Iterable[int], rules: Sequence[_Rule], shared: bool) -> frozenset[int]:
        """Those that a rule keeps for being new. What is needed counts among them."""
        by_rule: dict[_Rule, list[tuple[float, str, int]]] = {}
        for index in indexes:
            entry = self._entries[index]
            rule = self._first(rules, entry.name) if shared or entry.environment == self._environment else None
            if rule is not None and rule.newest:
                by_rule.setdefault(rule, []).append((-entry.made_at, entry.name, index))
        return frozenset(index for rule, cases in by_rule.items() for _, _, index in sorted(cases)[: rule.newest])

    @staticmethod
    def _first(rules: Sequence[_Rule], name: str) -> _Rule | None:
        for rule in rules:
            if rule.matches is None or rule.matches(name):
                return rule
        return None

    def expire(self, used: int) -> int:
        """Evicts what its time has come for, as far as may be; returns the bytes that are left."""
        asked = Counter(rule.kind for _, _, _, rule in self._expired)
        if any(count > kind.left for kind, count in asked.items()):
            self._expired.sort()  # only then it matters who is first
        found, entries = self._found, self._entries
        for _, _, index, rule in self._expired:
            kind = rule.kind
            if kind.left <= 0:
                self._hold(index, rule)
                continue
            kind.left -= 1
            entry = entries[index]
            frees = self._frees(entry) if entry.shared else entry.size
            found[index] = Verdict(entry, True, rule.place, rule.reason, frees)
            if kind.made_again:
                used -= frees
        return used

    def press(self, used: int, stop: int) -> int:
        """Evicts what can be spared, least recently used first, until no more than `stop` bytes are left."""
        self._spare.sort()
        for _, _, index, rule in self._spare:
            if used <= stop:
                break
            if not rule.kind.made_again:
                continue
            if rule.kind.left <= 0:
                self._hold(index, rule)
                continue
            rule.kind.left -= 1
            entry = self._entries[index]
            frees = self._frees(entry)
            self._found[index] = Verdict(entry, True, LIMITS, _PRESSED, frees)
            used -= frees
        return used

    def verdicts(self) -> tuple[Verdict, ...]:
        """All of them; what was neither needed nor let go has time left."""
        for _, _, index, rule in self._spare:
            if self._found[index] is None:
                self._found[index] = Verdict(self._entries[index], False, rule.place, "its time has not come")
        return tuple(verdict for verdict in self._found if verdict is not None)

    def _hold(self, index: int, rule: _Rule) -> None:
        self.capped += 1
        self._found[index] = Verdict(self._entries[index], False, f"{SAFETY}.maxDelete", rule.kind.held)

    def _frees(self, entry: Entry) -> int:
        """Bytes that come free with this entry, after those that went before it."""
        size = entry.size
        for file in entry.shared:
            self._links[file.inode] += file.here
            if self._links[file.inode] >= file.links:
                size += file.size
        return size
