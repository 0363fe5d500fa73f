"""The cache: what killed processes left goes at once, what a policy has no more use for goes by its rules."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.lib.bulk import no_collection
from reconciler.model.actions import EvictEntries, KillStray, SweepStaging
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.plan import Held
from reconciler.model.retention import CachePolicy, EntryKind, Eviction, ObservedCache
from reconciler.plan.retention import Retention, judge

CACHE = "cache"
"""The name of the one object that a policy is about."""


def plan_leftovers(observed: ObservedState) -> list[KillStray | SweepStaging]:
    """Everything here bears our stamp or lies in our own staging folders (I6)."""
    killed = [
        KillStray(name=stray.vm_id, pid=stray.pid, reason="its vm is in no inventory") for stray in observed.strays
    ]
    swept = [SweepStaging(name=path, reason="the process that made it is gone") for path in observed.corpses]
    return [*killed, *swept]


def plan_evictions(desired: DesiredState, observed: ObservedState) -> tuple[list[EvictEntries], list[Held]]:
    """What the file's policy lets go, in one step; nothing without a policy, or where the cache could not be read (I4)."""
    if desired.cache is None or observed.cache is None:
        return [], []
    if isinstance(observed.cache, Unknown):
        reason = f"the cache cannot be read: {observed.cache.reason}"
        return [], [Held(object=f"{CACHE}/{CACHE}", reason=reason, release="make the cache readable")]
    retention = weigh(desired, desired.cache, observed.cache)
    action = eviction(retention)
    return ([action] if action is not None else []), ([_pressure(retention)] if retention.pressed else [])


def weigh(desired: DesiredState, policy: CachePolicy, seen: ObservedCache) -> Retention:
    """The verdicts on everything, for a desired state that is about to be."""
    return judge(policy, seen, desired.environment, {**seen.roots, **wanted(desired)})


def wanted(desired: DesiredState) -> Mapping[str, str]:
    """What a file needs of the cache, also while nothing was made of it."""
    whose = desired.environment
    roots = {f"{EntryKind.IMAGE}/{i.id}": f"environment {whose} has image {i.name}" for i in desired.images.values()}
    roots |= {
        f"{EntryKind.KERNEL}/{k.id}": f"environment {whose} has kernel {k.name}" for k in desired.kernels.values()
    }
    for vm in desired.vms.values():
        for kind, identity in ((EntryKind.IMAGE, vm.image_id), (EntryKind.KERNEL, vm.kernel_id)):
            roots.setdefault(f"{kind}/{identity}", f"environment {whose} has vm {vm.name}")
    return roots


def eviction(retention: Retention) -> EvictEntries | None:
    """The step that does it; None if there is nothing to do."""
    with no_collection():
        gone = [verdict for verdict in retention.verdicts if verdict.evict]
        entries = tuple(Eviction(v.entry.kind, v.entry.name, v.rule, v.reason, v.frees, v.entry.used_at) for v in gone)
    if not entries:
        return None
    reasons = dict.fromkeys((entry.rule, entry.reason) for entry in entries)
    told = "; ".join(f"{rule}: {reason}" for rule, reason in reasons)
    return EvictEntries(name=CACHE, entries=entries, reason=told)


def _pressure(retention: Retention) -> Held:
    """Without a number in it: what changes with every write of somebody would be news each time."""
    if retention.capped:
        reason = "it is above its limit, and enough of it went within a day (cache.safety.maxDelete)"
        release = "wait, or raise cache.safety.maxDelete"
    else:
        reason = "it is above its limit, and what is left in it is needed, or kept by a rule"
        release = "`banger cache plan --all` says by what; make room on its file system, or raise cache.limits"
    return Held(object=f"{CACHE}/{CACHE}", reason=reason, release=release, advisory=True)
