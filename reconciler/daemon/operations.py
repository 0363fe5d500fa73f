"""What changes the host: apply, delete, the verbs of one VM, restore; and waiting for the result.

Apart from `local`, because what only reads has to be quick, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from secrets import token_hex

from reconciler.api.service import ApplyOptions, ApplyResult, Approve, Reporter, Source, VmRef, VmVerb, WaitFor
from reconciler.control.converge import converge
from reconciler.control.readiness import Waiter
from reconciler.daemon import pinning, power, views
from reconciler.daemon.engine import Engine
from reconciler.execute.executor import Executor
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, NotReadyError
from reconciler.model.actions import ShipWorkspace
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedVm
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step
from reconciler.model.status import ObjectStatus
from reconciler.model.vm import RunState
from reconciler.plan import PlanOptions, plan, plan_removal
from reconciler.store.inventory import EnvironmentRow

_LOOK_SECONDS = 0.2


def make_plan(engine: Engine, desired: DesiredState, options: ApplyOptions) -> Plan:
    """What an apply would do now. Registries are asked where they have to be, and nothing is written."""
    return _plan(engine, pinning.by_asking(engine.paths, desired, remember=False), options)


def _plan(engine: Engine, desired: DesiredState, options: ApplyOptions) -> Plan:
    observed = engine.observe(desired.environment, desired)
    return plan(desired, observed, PlanOptions(allow_recreate=options.allow_recreate))


def apply(  # noqa: PLR0917  # the service's own arguments, passed on
    engine: Engine, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
) -> ApplyResult:
    """Converges; the writer lock is held while things change, and not while guests boot."""
    with engine.writing(reporter.note, desired.environment):
        first = _plan(engine, pinning.by_asking(engine.paths, desired, remember=True), options)
        if options.expect is not None and first.fingerprint != options.expect:
            raise BangerError(
                "the saved plan no longer fits: the host has changed since it was made",
                hint="make a new one with `banger plan --out FILE`",
            )
        if first.steps and not approve(first):
            return ApplyResult(plan=first, approved=False)
        _remember(engine, desired, source)

        def again() -> Plan:
            return _plan(engine, pinning.by_memory(engine.paths, desired), options)

        outcomes = _converge(engine, first, again, options, reporter)
    should_run = [vm.name for vm in desired.vms.values() if vm.state is RunState.RUNNING]
    late = wait(engine, desired.environment, should_run, options.timeout, reporter) if options.wait else []
    if options.wait and any(vm.workspace is not None for vm in desired.vms.values()):
        outcomes += _ship(engine, desired, options, reporter)
    return ApplyResult(plan=first, outcomes=outcomes, not_ready=tuple(late))


def _ship(engine: Engine, desired: DesiredState, options: ApplyOptions, reporter: Reporter) -> tuple[Outcome, ...]:
    """What can be planned only now that guests were seen ready: their workspaces. Nothing else is begun."""
    with engine.writing(reporter.note, desired.environment):
        made = make_plan(engine, desired, options)
        steps = tuple(Step(step.action) for step in made.steps if isinstance(step.action, ShipWorkspace))
        nothing = Plan(environment=desired.environment)
        return _converge(engine, replace(nothing, steps=steps), lambda: nothing, options, reporter)


def delete(
    engine: Engine, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve
) -> ApplyResult:
    """Removes an environment, unless one VM of it is protected or could not be observed."""

    def again() -> Plan:
        known = environment in engine.inventory().environment_names()
        return plan_removal(engine.observe(environment)) if known else Plan(environment=environment)

    with engine.writing(reporter.note, environment):
        first = again()
        if first.held:
            raise BangerError(
                f"environment {environment} is not deleted: {'; '.join(map(str, first.held))}",
                hint="nothing was changed",
            )
        if not approve(first):
            return ApplyResult(plan=first, approved=False)
        return ApplyResult(plan=first, outcomes=_converge(engine, first, again, options, reporter))


def power_verb(engine: Engine, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
    """Starts, stops, restarts or kills one VM."""
    with engine.writing(reporter.note, ref.environment, frozenset({f"vm/{ref.name}"})):
        _execute(engine, power.plan_verb(verb, ref, engine.observe(ref.environment)), options, reporter)
    if verb in (VmVerb.START, VmVerb.RESTART) and options.wait:
        _wait_for_one(engine, ref, options, reporter)


def restore(  # noqa: PLR0917  # the service's own arguments, passed on
    engine: Engine, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
) -> VmRef:
    """Brings a VM back from the trash, and starts it if it should run."""
    wanted, _ = power.plan_restore(name, environment, entry, engine)
    with engine.writing(reporter.note, wanted.environment, frozenset({f"vm/{wanted.name}"})):
        ref, restoration = power.plan_restore(name, wanted.environment, entry, engine)
        _execute(engine, restoration, options, reporter)
        observed = engine.observe(ref.environment)
        should_run = observed.vms[ref.name].spec.state is RunState.RUNNING
        if should_run:
            _execute(engine, power.plan_verb(VmVerb.START, ref, observed), options, reporter)
    if should_run and options.wait:
        _wait_for_one(engine, ref, options, reporter)
    return ref


def wait(
    engine: Engine, environment: str, names: Sequence[str], timeout: float | None, reporter: Reporter
) -> list[ObjectStatus]:
    """Waits for the named VMs, and returns those that did not become ready."""
    if not engine.exists:
        return []
    inventory = engine.inventory()
    # A VM that was seen ready in this very boot, and still runs, is ready: asking again would cost each guest
    # a forked sshd, and tell no more than `banger status` does on request.
    vms = views.observe_vms(engine, environment)
    pending = [name for name in names if name in vms and not (vms[name].running and vms[name].ready_at is not None)]

    def seen(vm: ObservedVm) -> None:
        inventory.mark_ready(environment, vm.name, vm.id, vm.started_at, engine.clock.now())

    waiter = Waiter(
        environment=environment,
        paths=engine.paths,
        clock=engine.clock,
        observe=partial(views.observe_vms, engine, environment),
        seen_ready=seen,
        tell=reporter.waiting,
    )
    return [status for status in waiter.wait(pending, timeout) if not status.ready]


def wait_for(engine: Engine, environment: str, names: Sequence[str], timeout: float | None, condition: WaitFor) -> None:
    """Waits until the named VMs (none named: all) do not run, or do not exist. NotReadyError names those that do.

    timeout: seconds; None waits for as long as it takes.
    """
    end = None if timeout is None else engine.clock.monotonic() + timeout
    while True:
        vms = views.observe_vms(engine, environment) if engine.exists else {}
        chosen = [vms[name] for name in (names or list(vms)) if name in vms]
        left = [vm.name for vm in chosen if condition is WaitFor.GONE or vm.running]
        if not left:
            return
        if cancel.cancelled():
            raise CancelledError
        if end is not None and engine.clock.monotonic() >= end:
            state = "still there" if condition is WaitFor.GONE else "still running"
            raise NotReadyError(f"not {condition} in time: " + "; ".join(f"vm {name}: {state}" for name in left))
        engine.clock.sleep(_LOOK_SECONDS)


def not_ready_error(late: Sequence[ObjectStatus]) -> NotReadyError:
    """One error for all that are late, with what each lacks."""
    return NotReadyError(
        "not ready in time: " + "; ".join(f"vm {status.name}: {status.message}" for status in late),
        hint=f"banger logs {late[0].name} shows its console",
    )


def _wait_for_one(engine: Engine, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
    if late := wait(engine, ref.environment, [ref.name], options.timeout, reporter):
        raise not_ready_error(late)


def _remember(engine: Engine, desired: DesiredState, source: Source) -> None:
    """The last good generation; untouched if it is the same, so that a second apply writes nothing (I5)."""
    inventory = engine.inventory()
    old = inventory.environment(desired.environment)
    if old is not None and (old.desired, old.source) == (desired, str(source.path)):
        return
    inventory.put_environment(
        EnvironmentRow(
            name=desired.environment,
            source=str(source.path),
            digest=source.digest,
            desired=desired,
            applied_at=engine.clock.now(),
        )
    )


def _converge(
    engine: Engine, first: Plan, again: Callable[[], Plan], options: ApplyOptions, reporter: Reporter
) -> tuple[Outcome, ...]:
    if not first.steps:
        return ()
    tools = engine.tools(first.environment, options.operation or token_hex(6))
    executor = Executor(tools, reporter, parallel=options.parallel)
    ended = converge(first, again, executor.execute)
    if any(outcome.result is Result.CANCELLED for outcome in ended.outcomes):
        raise CancelledError
    if ended.left is not None and ended.left.steps:
        reporter.note(f"the host changes as fast as it is repaired; still to do: {ended.left.summary()}")
    return ended.outcomes


def _execute(engine: Engine, steps: Plan, options: ApplyOptions, reporter: Reporter) -> None:
    """Executes a plan of one VM's actions; the first failure is the caller's error."""
    nothing = Plan(environment=steps.environment)
    for outcome in _converge(engine, steps, lambda: nothing, options, reporter):
        if outcome.error is not None:
            raise outcome.error
