"""The guest tools: fetched when a VM is to be started and the cache lacks them. One fetch serves all VMs."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.model.actions import Action, FetchTools, StartVm
from reconciler.model.artifacts import GUEST_TOOLS
from reconciler.model.observed import ObservedState, Unknown

NAME = "guest-tools"


def plan_tools(actions: Iterable[Action], observed: ObservedState) -> list[FetchTools]:
    """What must be fetched for these actions. A cache that cannot be read holds their VMs back, not this."""
    if isinstance(observed.tools, Unknown) or GUEST_TOOLS.id in observed.tools:
        return []
    starts = any(isinstance(action, StartVm) for action in actions)
    reason = "they are not in the cache, and a vm is to be started"
    return [FetchTools(name=NAME, tools=GUEST_TOOLS, reason=reason)] if starts else []
