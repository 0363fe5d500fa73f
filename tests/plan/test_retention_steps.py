"""Random steps of pull, build, start, stop, trash, restore, prune and crash on a model of the host: nothing needed is lost.

The verdicts are the planner's own. How they are executed is modelled on `drivers.cache.evict`: each eviction is a step of
its own, in which what is needed, the locks and the time of use are looked at again, and anything may happen before and
after it. `BANGER_STEPS=1000000` takes as many steps.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from reconciler.model.retention import (
    DAY,
    CachePolicy,
    Entry,
    EntryKind,
    Limits,
    ObservedCache,
    Rule,
    Safety,
    Verdict,
)
from reconciler.plan.retention import judge

STEPS = int(os.environ.get("BANGER_STEPS", "12000"))
SHARDS = 4
NAMES = [f"{n}" for n in range(6)]
TRASH_DAYS = 7


@dataclass
class Model:
    """One host. `there` holds the time of the last use of each entry by key."""

    chance: random.Random
    now: float = 1e9
    there: dict[str, float] = field(default_factory=dict)
    desired: set[str] = field(default_factory=set)
    vms: dict[str, str] = field(default_factory=dict)
    trash: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    pulls: list[set[str]] = field(default_factory=list)
    using: list[str] = field(default_factory=list)
    """Images that are locked by a start."""
    pending: list[Verdict] = field(default_factory=list)
    planned_at: float = 0.0
    spent: list[tuple[float, str]] = field(default_factory=list)
    evicted: int = 0
    spared: int = 0

    # What other processes do.

    def want(self) -> None:
        self.desired.add(self.chance.choice(NAMES))
        self.build()

    def build(self) -> None:
        for name in self.desired | set(self.vms.values()):
            self.there.setdefault(f"image/{name}", self.now)

    def unwant(self) -> None:
        self.desired.discard(self.chance.choice(NAMES))

    def pin(self) -> None:
        key = self.chance.choice(sorted(self.there) or ["image/0"])
        if not key.startswith("trash"):
            (self.pins.discard if key in self.pins else self.pins.add)(key)

    def pull_begins(self) -> None:
        """It relies on those of its blobs that are there."""
        blobs = {f"blob/{n}" for n in self.chance.sample(NAMES, 3)}
        if len(self.pulls) < 2:
            self.pulls.append({blob for blob in blobs if blob in self.there})

    def pull_goes_on(self) -> None:
        if self.pulls:
            blob = f"blob/{self.chance.choice(NAMES)}"
            self.there.setdefault(blob, self.now)
            self.chance.choice(self.pulls).add(blob)

    def pull_ends(self) -> None:
        if self.pulls:
            for blob in self.pulls.pop():
                self.there[blob] = self.now
            self.there.setdefault(f"image/{self.chance.choice(NAMES)}", self.now)

    def create(self) -> None:
        """The record comes first, then the image where it is missing."""
        self.vms.setdefault(f"vm{self.chance.randrange(4)}", self.chance.choice(NAMES))
        self.build()

    def start_begins(self) -> None:
        if self.vms and len(self.using) < 2:
            image = self.vms[self.chance.choice(sorted(self.vms))]
            self.using.append(image)
            self.there[f"image/{image}"] = self.now

    def start_ends(self) -> None:
        if self.using:
            self.using.pop(0)

    def throw_away(self) -> None:
        if self.vms:
            vm = self.chance.choice(sorted(self.vms))
            image = self.vms.pop(vm)
            entry = f"env.{vm}.{self.chance.randrange(1 << 30)}"
            self.trash[entry] = (vm, image, self.now)
            self.there[f"trash/{entry}"] = self.now
            self.there[f"image/{image}"] = self.now

    def restore(self) -> None:
        if self.trash:
            entry = self.chance.choice(sorted(self.trash))
            vm, image, _ = self.trash[entry]
            if vm not in self.vms:
                del self.trash[entry], self.there[f"trash/{entry}"]
                self.vms[vm] = image

    def time_goes_by(self) -> None:
        self.now += self.chance.choice([1.0, 600.0, DAY / 2, 3 * DAY])

    def clock_jumps(self) -> None:
        """Ten years ahead, or back again."""
        ahead = self.now > 1.3e9
        self.now += -3650 * DAY if ahead else 3650 * DAY

    # What retention does.

    def roots(self) -> dict[str, str]:
        needed = self.desired | set(self.vms.values()) | {image for _, image, _ in self.trash.values()}
        return {**{f"image/{name}": "needed" for name in needed}, **dict.fromkeys(self.pins, "pinned")}

    def plan(self) -> None:
        kinds = (EntryKind.BLOB, EntryKind.IMAGE, EntryKind.TRASH)
        choose = self.chance.choice
        rules = tuple(
            Rule(
                kind=kind,
                newest=choose([0, 0, 1]),
                unused_for=TRASH_DAYS * DAY if kind is EntryKind.TRASH else choose([None, 60.0, 7 * DAY]),
            )
            for kind in self.chance.sample(kinds, choose([1, 2, 3]))
        )
        policy = CachePolicy(
            rules=rules,
            limits=Limits(max_used=choose([None, 0, 5])),
            safety=Safety(min_age=choose([0.0, 600.0]), max_delete=choose([0.5, 1.0])),
        )
        entries = tuple(
            Entry(EntryKind(key.partition("/")[0]), key.partition("/")[2], 1, used, used, environment="env")
            for key, used in self.there.items()
        )
        spent: dict[str, int] = {}
        for at, kind in self.spent:
            if abs(at - self.now) < DAY:
                spent[kind] = spent.get(kind, 0) + 1
        seen = ObservedCache(entries=entries, used=len(entries), now=self.now, spent=spent)
        self.planned_at = self.now
        self.pending = list(judge(policy, seen, "env", self.roots()).evicted)
        self.spent += [(self.now, verdict.entry.kind.value) for verdict in self.pending]
        self.spent = self.spent[-500:]

    def evict_one(self) -> None:
        """Under the locks: nothing else happens between the look and the rename."""
        if not self.pending:
            return
        entry = self.pending.pop(0).entry
        key = entry.key
        locked = (entry.kind is EntryKind.BLOB and self.pulls) or entry.name in self.using
        if key not in self.there or key in self.roots() or locked or self.there[key] > entry.used_at:
            self.spared += 1
            return
        del self.there[key]
        if entry.kind is EntryKind.TRASH:
            del self.trash[entry.name]
        self.evicted += 1

    def crash(self) -> None:
        """Of what was under way, the locks go with their holders; what was written down stays."""
        self.pulls, self.using, self.pending = [], [], []


def reachable(model: Model) -> set[str]:
    """What must not go: needed, relied upon, locked; and the trash until its time is over."""
    kept = {f"image/{name}" for name in model.desired | set(model.vms.values()) | set(model.using)} | model.pins
    for relied in model.pulls:
        kept |= relied
    for entry, (_, image, at) in model.trash.items():
        kept.add(f"image/{image}")
        # A plan that was made while the clock was ahead is done also after it was set back.
        if max(model.now, model.planned_at if model.pending else 0.0) - at < TRASH_DAYS * DAY:
            kept.add(f"trash/{entry}")
    return kept & model.there.keys()


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_step_loses_what_is_reachable(shard: int) -> None:
    model = Model(random.Random(shard))
    steps: list[tuple[Callable[[], None], int]] = [
        (model.want, 3),
        (model.unwant, 4),
        (model.pin, 1),
        (model.pull_begins, 3),
        (model.pull_goes_on, 6),
        (model.pull_ends, 3),
        (model.create, 3),
        (model.start_begins, 3),
        (model.start_ends, 4),
        (model.throw_away, 3),
        (model.restore, 2),
        (model.time_goes_by, 6),
        (model.clock_jumps, 1),
        (model.plan, 4),
        (model.evict_one, 14),
        (model.crash, 1),
    ]
    removals = (model.restore,)  # what a person moves by hand is where it was moved to
    drawn = model.chance.choices([step for step, _ in steps], [weight for _, weight in steps], k=STEPS // SHARDS)
    for number, step in enumerate(drawn):
        before = reachable(model)
        step()
        if step in removals:
            continue
        lost = before - model.there.keys()
        assert not lost, f"step {number}, {step.__name__}: lost {lost}"
    assert model.evicted > len(drawn) // 100 and model.spared, "the model is too tame to show anything"
