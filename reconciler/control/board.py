"""Steps that may begin, for as long as no thread has taken them, in lanes by how long they last.

A step is on the board only until the next plan: what stands there is never older than one look at the host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

from reconciler.model.actions import (
    Action,
    BuildImage,
    ConfigureGuest,
    FetchKernel,
    FetchTools,
    ProvisionVm,
    ShipWorkspace,
    StartVm,
    StopVm,
)
from reconciler.model.plan import Step


class Lane(StrEnum):
    """Whose thread takes a step. What is quick never stands behind what takes minutes (I7)."""

    QUICK = "quick"
    START = "start"
    """Waits for its turn to boot."""
    STOP = "stop"
    """Waits for a guest to shut down, and needs nothing meanwhile."""
    BUILD = "build"
    """Downloads, builds, and ships."""
    GUEST = "guest"
    """Waits for a guest that boots, and for what it does."""

    @staticmethod
    def of(action: Action) -> Lane:
        match action:
            case StartVm():
                return Lane.START
            case StopVm():
                return Lane.STOP
            case BuildImage() | FetchKernel() | FetchTools() | ShipWorkspace():
                return Lane.BUILD
            case ConfigureGuest() | ProvisionVm():
                return Lane.GUEST
            case _:
                return Lane.QUICK


class Board:
    """In each lane the environments take turns, step by step, however many steps each of them has."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[str, dict[str, Step]]] = {lane: {} for lane in Lane}

    def put_up(self, environment: str, steps: Iterable[Step]) -> None:
        """Replaces what the board has of `environment`: the first step of each object, in this order."""
        new: dict[Lane, dict[str, Step]] = {lane: {} for lane in Lane}
        seen: set[str] = set()
        for step in steps:
            target = step.action.object
            if target not in seen:
                seen.add(target)
                new[Lane.of(step.action)][target] = step
        for lane, waiting in self._lanes.items():
            if new[lane]:
                waiting[environment] = new[lane]  # its turn stays where it was
            else:
                waiting.pop(environment, None)

    def take(self, lane: Lane) -> tuple[str, Step] | None:
        """The next step and its environment, whose turn is over; None if there is none."""
        waiting = self._lanes[lane]
        environment = next(iter(waiting), None)
        if environment is None:
            return None
        steps = waiting.pop(environment)
        step = steps.pop(next(iter(steps)))
        if steps:
            waiting[environment] = steps
        return environment, step

    def withdraw(self, environment: str, targets: Collection[str] | None = None) -> None:
        """Takes the steps of these objects off; None those of all."""
        for waiting in self._lanes.values():
            if environment not in waiting:
                continue
            left = {} if targets is None else {t: s for t, s in waiting[environment].items() if t not in targets}
            if left:
                waiting[environment] = left
            else:
                del waiting[environment]

    def count(self, lane: Lane) -> int:
        """How many steps could begin in this lane."""
        return sum(len(steps) for steps in self._lanes[lane].values())

    def has(self, environment: str) -> bool:
        return any(environment in waiting for waiting in self._lanes.values())
