"""`dependsOn`: which VM cannot start now because another one does not run, and what is waited for.

Only a VM that is to be started looks at others. One that runs is left alone, whatever becomes of what it depends on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.model.actions import Action, AwaitReady, StartVm, StopVm
from reconciler.model.observed import ObservedVm
from reconciler.model.vm import DependsOn, RunState, Vm
from reconciler.plan.vms import Decision, World


def blocked(decisions: Mapping[str, Decision], desired: Mapping[str, Vm], world: World) -> dict[str, tuple[str, str]]:
    """VMs that would be started without one that they need: why not, and what would let them."""
    starts = {name: start for name, decision in decisions.items() if (start := _start(decision)) is not None}
    up = {name for name in decisions if name in starts or _stays_up(decisions[name], world.observed.vms.get(name))}
    needed_by: dict[str, list[str]] = {}
    for name, start in starts.items():
        for dependency in start.vm.depends_on:
            if dependency.vm in decisions:
                needed_by.setdefault(dependency.vm, []).append(name)
    found: dict[str, tuple[str, str]] = {}
    down = [name for name in needed_by if name not in up]
    for missing in down:  # grows while it is walked: who cannot start keeps others from starting
        for name in needed_by.get(missing, ()):
            if name in found:
                continue
            found[name] = _why(missing, decisions[missing], desired.get(missing), held=missing in found)
            if not _would_stay_up(world.observed.vms.get(name)):
                down.append(name)
    return found


def waits(decisions: Mapping[str, Decision], vms: Mapping[str, ObservedVm]) -> list[AwaitReady]:
    """One wait for each VM that must be ready for another to start, and was not seen so in its present boot."""
    wanted: dict[str, list[str]] = {}
    for name, decision in decisions.items():
        start = _start(decision)
        for dependency in start.vm.depends_on if start is not None else ():
            if dependency.on is DependsOn.READY and dependency.vm in decisions:
                wanted.setdefault(dependency.vm, []).append(name)
    actions = []
    for name, dependents in wanted.items():
        start, have = _start(decisions[name]), vms.get(name)
        if start is None and (have is None or not have.running or have.ready_at is not None):
            continue
        spec = start.vm if start is not None else have.spec if have is not None else None
        assert spec is not None
        more = f" and {len(dependents) - 1} more depend" if len(dependents) > 1 else " depends"
        reason = f"vm {min(dependents)}{more} on it"
        actions.append(AwaitReady(name=name, reason=reason, timeout=spec.ready.timeout))
    return actions


def graph(actions: Sequence[Action], vms: Mapping[str, ObservedVm]) -> dict[str, list[str]]:
    """VM → the VMs that it depends on, for all that start or stop; without the edges that would close a circle.

    The file has none, but a VM that is held back keeps the settings that it had, and those may point the other way.
    """
    specs = {name: have.spec for name, have in vms.items()}
    specs.update({action.name: action.vm for action in actions if isinstance(action, StartVm)})
    moving = {action.name for action in actions if isinstance(action, (StartVm, StopVm))}
    edges = {name: [d.vm for d in specs[name].depends_on if d.vm in moving or d.vm in specs] for name in sorted(specs)}
    return _without_circles({name: others for name, others in edges.items() if others})


def _without_circles(edges: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Depth first, without recursion: a chain may be as long as the file."""
    kept: dict[str, list[str]] = {}
    open_, done = set[str](), set[str]()
    for start in edges:
        todo = [(start, False)]
        while todo:
            name, left = todo.pop()
            if left:
                open_.discard(name)
                done.add(name)
            elif name not in done and name not in open_:
                open_.add(name)
                todo.append((name, True))
                kept[name] = []
                for other in edges.get(name, ()):
                    if other not in open_:
                        kept[name].append(other)
                        todo.append((other, False))
    return kept


def _start(decision: Decision) -> StartVm | None:
    return next((action for action in decision.actions if isinstance(action, StartVm)), None)


def _stays_up(decision: Decision, have: ObservedVm | None) -> bool:
    return _would_stay_up(have) and not any(isinstance(action, StopVm) for action in decision.actions)


def _would_stay_up(have: ObservedVm | None) -> bool:
    return have is not None and have.running


def _why(name: str, decision: Decision, want: Vm | None, *, held: bool) -> tuple[str, str]:
    """`held`: only because of another one that it depends on itself."""
    if decision.held or held:
        return f"it depends on vm {name}, which is held back", f"see why vm {name} is held back"
    if want is not None and want.state is RunState.STOPPED:
        return f"it depends on vm {name}, which is to be stopped", f"set vms.{name}.state: running"
    rests = decision.rests or "does not run"
    return f"it depends on vm {name}, which {rests}", f"`banger vm start {name}`"
