"""What nobody is asked about must not take much away: the removals of an unattended plan, weighed before they are planned.

An approval is for exactly one set of VMs and one desired state. Once it is given, it is noted on each of the VMs, so that
it holds until the last of them is gone, however often the work is cut off, and for no other content of the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reconciler.model.actions import ApproveRemoval
from reconciler.model.codec import to_json
from reconciler.model.desired import DesiredState
from reconciler.model.ids import identity
from reconciler.model.observed import ObservedState

UNPRUNED = "set controller.prune: true, or `banger apply`"
_DIGITS = 12
_ROUNDING = 1e-9  # 29% of 100 VMs are 29 of them


def removal_digest(desired: DesiredState, names: Collection[str]) -> str:
    """12 hex digits that stand for the removal of these VMs for the sake of this desired state, and for no other."""
    return identity("removal", [state_digest(desired), sorted(names)])[:_DIGITS]


def state_digest(desired: DesiredState) -> str:
    """12 hex digits that change with anything that is wanted."""
    return identity("desired", to_json(desired))[:_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of the removals that a plan would have.

    Parameters
    ----------
    withheld: VM → why it is not removed, and what would let it go.
    approval: the digest that is waited for, or that was just given.
    steps: what is to be recorded before the removals that were approved.
    """

    withheld: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    approval: str | None = None
    steps: tuple[ApproveRemoval, ...] = ()


def weigh(
    desired: DesiredState,
    observed: ObservedState,
    removals: Collection[str],
    *,
    prune: bool,
    max_delete: float | None,
    approved: Collection[str],
) -> Verdict:
    """Judges the removals of an unattended plan.

    Parameters
    ----------
    removals: VMs of the inventory that are in the file no more, and that nothing else holds back.
    prune, max_delete: as in the file; None for no limit.
    approved: digests that somebody has approved.
    """
    if not prune:
        return Verdict(withheld={n: (f"vms.{n} is not in the file, and pruning is off", UNPRUNED) for n in removals})
    # A VM that this generation has brought does not count: with enough of them, all others could go unasked.
    total = len({n for n, vm in observed.vms.items() if vm.generation < observed.generation}.union(removals))
    limit = None if max_delete is None else max_delete * total + _ROUNDING
    if limit is None or len(removals) <= limit:
        return Verdict()
    state = state_digest(desired)
    left = sorted(name for name in removals if observed.vms[name].condemned != state)
    if len(left) <= limit:
        return Verdict()
    digest = removal_digest(desired, left)
    if digest in approved:
        step = ApproveRemoval(
            name=desired.environment,
            reason=f"{digest} was approved",
            vms=tuple(left),
            digest=digest,
            state=state,
        )
        return Verdict(approval=digest, steps=(step,))
    words = f"removing {len(left)} of {total} vms at once is more than controller.maxDelete ({max_delete:.0%}) allows"
    return Verdict(
        withheld={name: (f"vms.{name} is not in the file, but {words}", f"`banger approve {digest}`") for name in left},
        approval=digest,
    )
