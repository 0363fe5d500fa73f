"""A plan: what will be done, in which order, why, and what is held back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.model.actions import Action, EvictEntries, StartVm, StopVm, TrashVm
from reconciler.model.changes import ChangeClass
from reconciler.model.ids import identity
from reconciler.model.nouns import API_VERSION


@dataclass(frozen=True, slots=True)
class Step:
    """An action and the ids of the actions that must have succeeded before it."""

    action: Action
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.action.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A difference that the plan does not touch, with its reason and what would let it go.

    `advisory` means that it is no difference from the file, but something that one should know: a cache that is full.
    """

    object: str
    reason: str
    release: str
    advisory: bool = False

    def __str__(self) -> str:
        return f"{self.object}: {self.reason}; {self.release}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in a topological order. An empty plan means that file and host agree."""

    environment: str
    steps: tuple[Step, ...] = ()
    held: tuple[Held, ...] = ()
    approval: str | None = None
    """What `banger approve` has to be given to let removals go that this plan holds back, or has just let go."""

    @property
    def empty(self) -> bool:
        return not self.steps and not self.held

    @property
    def differs(self) -> bool:
        """Whether file and host do not agree; a plan that differs in nothing may still have something to tell."""
        return bool(self.steps) or any(not held.advisory for held in self.held)

    @property
    def disruptive(self) -> tuple[Step, ...]:
        """The steps that stop something which runs, or take something away."""
        return tuple(
            step
            for step in self.steps
            if step.action.change_class.disruptive
            or isinstance(step.action, (StopVm, TrashVm))
            or (isinstance(step.action, EvictEntries) and step.action.loses)
        )

    @property
    def fingerprint(self) -> str:
        """Changes with every action, reason and edge: equal fingerprints are the same plan for the same world."""
        return identity("plan", self._content())

    def summary(self) -> str:
        """`2 to create, 1 to restart` in words, for the last line of a plan."""
        count: dict[str, int] = {}
        restarted = {s.action.name for s in self.steps if isinstance(s.action, StopVm) and s.action.restart}
        for step in self.steps:
            action = step.action
            if action.change_class is ChangeClass.RESTART:
                word = "restart"
            elif isinstance(action, StartVm) and action.name in restarted:
                continue
            else:
                word = action.verb
            count[word] = count.get(word, 0) + 1
        if self.held:
            count["hold back"] = len(self.held)
        return ", ".join(f"{number} to {word}" for word, number in count.items()) or "nothing to do"

    def to_json(self) -> dict[str, Any]:
        """The documented form (schemas/plan.schema.json)."""
        return {
            "apiVersion": API_VERSION,
            "kind": "Plan",
            "fingerprint": self.fingerprint,
            **self._content(),
            "approval": self.approval,
        }

    def _content(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "steps": [{**step.action.to_json(), "needs": list(step.needs)} for step in self.steps],
            "held": [
                {"object": h.object, "reason": h.reason, "release": h.release, "advisory": h.advisory}
                for h in self.held
            ],
        }
