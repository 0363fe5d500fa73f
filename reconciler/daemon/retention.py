"""What is asked about the cache: what lies in it and why, pruning by a policy, and emptying the blobs."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

from reconciler.api.service import ApplyOptions, ApplyResult, Approve, CacheView, Cleared, Reporter
from reconciler.control.converge import converge
from reconciler.daemon.engine import Engine
from reconciler.drivers.cache import evict, probe
from reconciler.execute.executor import Executor
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.paths import Paths
from reconciler.model.desired import DesiredState
from reconciler.model.observed import Unknown
from reconciler.model.outcome import Result
from reconciler.model.plan import Plan, Step
from reconciler.model.retention import CachePolicy, EntryKind, ObservedCache
from reconciler.plan.cache import CACHE, eviction, weigh

OBJECT = f"{CACHE}/{CACHE}"
_NOBODY = DesiredState(environment="none")


def view(engine: Engine, desired: DesiredState | None) -> CacheView:
    """Every entry with its verdict. Raises BangerError if the cache cannot be read."""
    seen = _look(engine)
    policy = desired.cache if desired is not None else None
    found = weigh(desired or _NOBODY, policy or CachePolicy(), seen)
    return CacheView(
        folder=engine.paths.cache,
        verdicts=found.verdicts,
        used=seen.used,
        free=seen.free,
        total=seen.total,
        limit=found.limit,
        pressed=found.pressed,
        policy=policy is not None,
    )


def prune(
    engine: Engine, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
) -> ApplyResult:
    """Evicts what the plan names, and nothing else: there is one plan, and no second look for more."""
    if desired.cache is None:
        return ApplyResult(plan=Plan(environment=desired.environment))
    with engine.writing(reporter.note, desired.environment, frozenset({OBJECT})):
        plan = _plan(engine, desired)
        if not plan.steps:
            return ApplyResult(plan=plan)
        if not approve(plan):
            return ApplyResult(plan=plan, approved=False)
        executor = Executor(engine.tools(plan.environment, options.operation or token_hex(6)), reporter, parallel=1)
        ended = converge(plan, partial(Plan, environment=plan.environment), executor.execute)
    if any(outcome.result is Result.CANCELLED for outcome in ended.outcomes):
        raise CancelledError
    return ApplyResult(plan=plan, outcomes=ended.outcomes)


def clear_blobs(paths: Paths, dry_run: bool) -> Cleared:
    """Empties the cache of blobs: counted, renamed aside in one step, an empty folder in its place, then removed.

    A cache that is not there is empty. A pull that is under way has links of its own to what it works with.
    """
    folder = paths.blobs
    if folder.is_symlink():
        raise BangerError(f"{folder} is a symbolic link", hint="what it leads to is yours to empty")
    try:
        found = list(probe.blobs(folder))
        if not dry_run and folder.is_dir():
            evict.empty(folder, paths.oci)
    except OSError as problem:
        raise BangerError(
            f"cannot empty {paths.oci}: {problem.strerror}", hint=f"ls -ld {paths.oci} {folder}"
        ) from problem
    return Cleared(folder=paths.oci, blobs=len(found), size=probe.used_bytes(found))


def _look(engine: Engine) -> ObservedCache:
    if not engine.exists:
        return _alone(engine)
    seen = engine.observe_cache()
    if isinstance(seen, Unknown):
        raise BangerError(f"the cache cannot be read: {seen.reason}", hint=f"ls -lR {engine.paths.cache}")
    return seen


def _alone(engine: Engine) -> ObservedCache:
    """A cache without a state directory: nothing was ever made of it here."""
    paths = engine.paths
    try:
        entries = [entry for kind, folder in probe.places(paths).items() for entry in probe.entries(kind, folder)]
        free, total = probe.room(paths.cache)
    except OSError as problem:
        raise BangerError(f"the cache cannot be read: {problem.strerror}: {problem.filename}") from problem
    used = probe.used_bytes(entry for entry in entries if entry.kind is not EntryKind.TRASH)
    return ObservedCache(entries=tuple(entries), used=used, free=free, total=total, now=engine.clock.now())


def _plan(engine: Engine, desired: DesiredState) -> Plan:
    assert desired.cache is not None
    action = eviction(weigh(desired, desired.cache, _look(engine)))
    return Plan(environment=desired.environment, steps=() if action is None else (Step(action),))
