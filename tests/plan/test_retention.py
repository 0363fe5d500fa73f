"""What becomes of each entry of the cache: needs before rules, rules in their order, limits, caps, clocks."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from reconciler.lib.units import GIB, MIB
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.retention import (
    DAY,
    CachePolicy,
    Entry,
    EntryKind,
    Limits,
    ObservedCache,
    Rule,
    Safety,
    SharedFile,
    Verdict,
    Watermarks,
)
from reconciler.plan import plan
from reconciler.plan.cache import eviction
from reconciler.plan.retention import Retention, judge

NOW = 1_700_000_000.0
FREELY = Safety(min_age=0.0, max_delete=1.0)
IMAGES = Rule(kind=EntryKind.IMAGE, unused_for=30 * DAY)


def entry(name: str, *, kind: EntryKind = EntryKind.IMAGE, days: float = 100, size: int = MIB, **more: Any) -> Entry:
    """Made and last used so many days ago."""
    return Entry(kind, name, size, NOW - days * DAY, NOW - days * DAY, **more)


def seen(*entries: Entry, **more: Any) -> ObservedCache:
    used = sum(e.total for e in entries if e.kind.made_again)
    return ObservedCache(entries=entries, **{"used": used, "free": 10 * GIB, "total": 100 * GIB, "now": NOW, **more})


def policy(*rules: Rule, **more: Any) -> CachePolicy:
    return CachePolicy(rules=rules, **{"safety": FREELY, **more})


def weighed(which: CachePolicy, cache: ObservedCache, environment: str = "env") -> Retention:
    return judge(which, cache, environment, cache.roots)


def gone(which: CachePolicy, cache: ObservedCache) -> list[str]:
    return [verdict.entry.name for verdict in weighed(which, cache).evicted]


def why(which: CachePolicy, cache: ObservedCache, name: str) -> Verdict:
    return next(v for v in weighed(which, cache).verdicts if v.entry.name == name)


def test_without_a_rule_that_matches_nothing_goes_however_full_it_is() -> None:
    cache = seen(entry("a"), entry("b", kind=EntryKind.BLOB))
    tight = Limits(max_used=0)
    assert gone(policy(limits=tight), cache) == []
    kernels = policy(Rule(kind=EntryKind.KERNEL, unused_for=0.0), limits=tight)
    assert gone(kernels, cache) == []
    assert why(kernels, cache, "a").reason == "no rule matches it"
    assert weighed(kernels, cache).pressed


def test_what_its_rule_gives_no_more_time_goes() -> None:
    cache = seen(entry("old", days=31), entry("young", days=29), entry("exact", days=30))
    assert gone(policy(IMAGES), cache) == ["old", "exact"]
    verdict = why(policy(IMAGES), cache, "old")
    assert (verdict.rule, verdict.reason, verdict.frees) == ("cache.rules[0]", "not used for 30d", MIB)


def test_what_is_needed_stays_whatever_a_rule_says() -> None:
    cache = seen(entry("a"), entry("b"), roots={"image/a": "vm env/dev is made of it"})
    always = policy(Rule(kind=EntryKind.IMAGE, unused_for=0.0), limits=Limits(max_used=0))
    assert gone(always, cache) == ["b"]
    assert why(always, cache, "a").reason == "vm env/dev is made of it"


def test_the_first_rule_that_matches_counts() -> None:
    rules = policy(Rule(kind=EntryKind.IMAGE, name="keep-*"), Rule(kind=EntryKind.IMAGE, unused_for=DAY))
    cache = seen(entry("keep-me"), entry("other"))
    assert gone(rules, cache) == ["other"]
    assert why(rules, cache, "keep-me").rule == "cache.rules[0]"


def test_the_newest_of_what_a_rule_matches_stay() -> None:
    cache = seen(entry("a", days=90), entry("b", days=70), entry("c", days=80), entry("d", days=95))
    assert gone(policy(replace(IMAGES, newest=2)), cache) == ["a", "d"]


def test_what_was_used_a_moment_ago_stays() -> None:
    fresh = entry("fresh", days=0.001)
    always = policy(Rule(kind=EntryKind.IMAGE, unused_for=0.0), safety=Safety(min_age=600.0, max_delete=1.0))
    assert gone(always, seen(fresh, entry("old"))) == ["old"]
    ahead = entry("from a clock that was ahead", days=-5)
    assert gone(always, seen(ahead)) == []


def test_above_the_upper_mark_the_least_recently_used_go_down_to_the_lower_one() -> None:
    cache = seen(*(entry(f"{n}", days=20 - n, size=10 * MIB) for n in range(10)))
    limits = Limits(max_used=100 * MIB)
    marks = Watermarks(start=0.9, stop=0.55)
    assert gone(policy(IMAGES, limits=limits, watermarks=marks), cache) == ["0", "1", "2", "3", "4"]
    assert gone(policy(IMAGES, limits=Limits(max_used=200 * MIB), watermarks=marks), cache) == []
    rule = why(policy(IMAGES, limits=limits, watermarks=marks), cache, "0")
    assert rule.rule == "cache.limits"


def test_free_space_is_a_limit_too_and_the_smaller_one_counts() -> None:
    cache = seen(*(entry(f"{n}", days=20 - n, size=GIB) for n in range(10)), free=5 * GIB)
    exact = Watermarks(start=1.0, stop=1.0)
    assert gone(policy(IMAGES, limits=Limits(min_free=7 * GIB), watermarks=exact), cache) == ["0", "1"]
    assert gone(policy(IMAGES, limits=Limits(min_free_part=0.1), watermarks=exact), cache) == [f"{n}" for n in range(5)]
    both = Limits(max_used=4 * GIB, min_free=7 * GIB)
    assert len(gone(policy(IMAGES, limits=both, watermarks=exact), cache)) == 6


def test_what_is_reserved_is_left_to_it() -> None:
    cache = seen(*(entry(f"{n}", days=20 - n, size=GIB) for n in range(10)), free=0)
    limits = Limits(min_free=50 * GIB, reserved=4 * GIB)
    assert len(gone(policy(IMAGES, limits=limits), cache)) == 6


def test_the_trash_goes_by_its_own_rule_and_time_and_never_for_room() -> None:
    mine = [entry(f"env.a.{n}", kind=EntryKind.TRASH, days=n, environment="env", protected=n == 6) for n in (6, 8)]
    theirs = entry("other.b.1", kind=EntryKind.TRASH, environment="other")
    unread = entry("junk", kind=EntryKind.TRASH)
    cache = seen(*mine, theirs, unread, used=10 * GIB)
    rule = Rule(kind=EntryKind.TRASH, unused_for=7 * DAY)
    assert gone(policy(rule, limits=Limits(max_used=0)), cache) == ["env.a.8"]
    assert gone(policy(Rule(kind=EntryKind.TRASH), limits=Limits(max_used=0)), cache) == []
    assert "environment other" in why(policy(rule), cache, "other.b.1").reason
    assert not why(policy(rule), cache, "junk").evict


def test_a_clock_ten_years_ahead_costs_no_more_than_the_cap_until_a_day_has_gone_by() -> None:
    cache = seen(*(entry(f"{n:02}", days=1) for n in range(20)))
    capped = policy(IMAGES, safety=Safety(max_delete=0.5), limits=Limits(max_used=1))
    ahead = replace(cache, now=NOW + 3650 * DAY)
    first = weighed(capped, ahead)
    assert [v.entry.name for v in first.evicted] == [f"{n:02}" for n in range(10)]
    assert first.pressed and first.capped
    left = replace(ahead, entries=ahead.entries[10:], used=10 * MIB, spent={"image": 10})
    assert gone(capped, left) == []
    assert why(capped, left, "19").rule == "cache.safety.maxDelete"


@pytest.mark.parametrize(("part", "count", "spent", "most"), [
    (0.5, 1, 0, 1), (0.5, 3, 0, 2), (0.5, 2, 2, 0), (0.0, 9, 0, 0), (0.29, 100, 0, 29), (1.0, 5, 0, 5), (0.5, 2, 1, 1),
])  # fmt: skip
def test_the_cap_is_a_part_of_each_kind_rounded_up(part: float, count: int, spent: int, most: int) -> None:
    entries = [entry(f"{n}", kind=kind) for kind in (EntryKind.IMAGE, EntryKind.BLOB) for n in range(count)]
    rules = (IMAGES, replace(IMAGES, kind=EntryKind.BLOB))
    found = weighed(
        policy(*rules, safety=Safety(max_delete=part)), seen(*entries, spent={"image": spent, "blob": spent})
    )
    assert len(found.evicted) == 2 * most


def test_a_file_of_several_names_comes_free_with_its_last_one() -> None:
    def half(name: str, days: float, links: int = 2) -> Entry:
        return entry(name, days=days, size=0, shared=(SharedFile("1:7", 8 * MIB, links, 1),))

    both = weighed(policy(IMAGES), seen(half("a", 60), half("b", 50), used=8 * MIB))
    assert [v.frees for v in both.verdicts] == [0, 8 * MIB] and both.used == 0
    assert weighed(policy(IMAGES), seen(half("a", 60), half("b", 5))).frees == 0
    assert weighed(policy(IMAGES), seen(half("a", 60, links=3), half("b", 50, links=3))).frees == 0


def test_everything_needed_on_a_full_disk_loses_nothing_and_says_so() -> None:
    cache = seen(entry("a"), entry("b"), roots={"image/a": "x", "image/b": "x"}, free=0)
    wanted = DesiredState(environment="env", cache=policy(IMAGES, limits=Limits(min_free=GIB)))
    found = plan(wanted, ObservedState(install="i", environment="env", cache=cache))
    assert found.steps == () and not found.differs
    (held,) = found.held
    assert held.advisory and held.object == "cache/cache" and "needed" in held.reason


@pytest.mark.parametrize("policy_", [None, CachePolicy()])
def test_an_absent_or_an_empty_policy_lets_nothing_go(policy_: CachePolicy | None) -> None:
    cache = seen(*(entry(f"{kind}", kind=kind, days=9999, environment="env") for kind in EntryKind), free=0)
    wanted = DesiredState(environment="env", cache=policy_)
    assert plan(wanted, ObservedState(install="i", environment="env", cache=cache)).empty


def test_a_cache_that_cannot_be_read_loses_nothing() -> None:
    wanted = DesiredState(environment="env", cache=policy(IMAGES))
    found = plan(wanted, ObservedState(install="i", environment="env", cache=Unknown("permission denied")))
    assert found.steps == () and "permission denied" in found.held[0].reason and found.differs


def arbitrary(chance: random.Random) -> tuple[CachePolicy, ObservedCache]:
    kinds = list(EntryKind)
    entries = {
        e.key: e
        for e in (
            entry(
                f"{chance.randrange(30)}",
                kind=chance.choice(kinds),
                days=chance.uniform(-1, 60),
                size=chance.randrange(64) * MIB,
                environment=chance.choice(["env", "other", None]),
                protected=chance.random() < 0.2,
            )
            for _ in range(chance.randrange(40))
        )
    }
    rules = [
        Rule(
            kind=chance.choice([kind for kind in kinds if kind.ruled]),
            name=chance.choice(["*", "1*", "?"]),
            newest=chance.randrange(3),
            unused_for=chance.choice([None, 0.0, 7 * DAY, 30 * DAY]),
        )
        for _ in range(chance.randrange(5))
    ]
    roots = {key: "needed" for key in entries if chance.random() < 0.3}
    roots |= {e.key: "being made" for e in entries.values() if e.kind is EntryKind.STAGING}
    limits = Limits(max_used=chance.choice([None, 0, 200 * MIB]), reserved=chance.choice([0, 100 * MIB]))
    safety = Safety(min_age=chance.choice([0.0, DAY]), max_delete=chance.choice([0.0, 0.5, 1.0]))
    return (
        policy(*rules, limits=limits, safety=safety),
        seen(*entries.values(), roots=roots, spent={chance.choice(kinds).value: chance.randrange(5)}),
    )


def test_whatever_is_there_and_whatever_is_asked_the_promises_hold() -> None:
    chance = random.Random(5)
    for _ in range(1000):
        which, cache = arbitrary(chance)
        found = weighed(which, cache)
        assert [v.entry for v in found.verdicts] == list(cache.entries)
        for verdict in found.verdicts:
            e = verdict.entry
            assert verdict.rule and verdict.reason
            if verdict.evict:
                assert e.key not in cache.roots and e.kind.ruled
                assert any(rule.kind is e.kind for rule in which.rules)
                assert cache.now - e.used_at >= which.safety.min_age
                assert e.kind.made_again or (e.environment == "env" and verdict.rule.startswith("cache.rules"))
        action = eviction(found)
        assert (action is None) == (not found.evicted)
        assert action is None or action.frees == found.frees
        # What is left after it was done is looked at again: nothing more goes.
        went = {v.entry.key for v in found.evicted}
        counts = dict(cache.spent)
        for verdict in found.evicted:
            counts[verdict.entry.kind.value] = counts.get(verdict.entry.kind.value, 0) + 1
        left = tuple(e for e in cache.entries if e.key not in went)
        used = sum(e.total for e in left if e.kind.made_again)
        assert used == found.used
        again = weighed(which, replace(cache, entries=left, used=used, spent=counts))
        assert not again.evicted, (which, again.evicted)
