"""Which action waits for which: edges from rules, then a stable topological order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from reconciler.model.actions import (
    Action,
    ApproveRemoval,
    AwaitReady,
    BuildImage,
    ConfigureGuest,
    CreateVm,
    DeleteBridge,
    DeleteTap,
    EnsureBridge,
    EnsureRules,
    EnsureTap,
    FetchKernel,
    FetchTools,
    ForgetEnvironment,
    ProvisionVm,
    PublishPorts,
    ShipWorkspace,
    StartVm,
    StopVm,
    TrashVm,
    TrashVolumes,
    UpdateVm,
)
from reconciler.model.artifacts import BuiltImage, ImageKernel
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.plan import Step
from reconciler.model.vm import DependsOn
from reconciler.plan.dependencies import graph

# Within one VM: what goes before what. A tap that a stopped VMM held open is made only after it let go.
_BEFORE: Mapping[type, tuple[type, ...]] = {
    DeleteTap: (StopVm,),
    TrashVm: (StopVm, DeleteTap),
    CreateVm: (StopVm, TrashVm),
    UpdateVm: (StopVm,),
    EnsureTap: (StopVm, TrashVm),
    StartVm: (StopVm, TrashVm, CreateVm, UpdateVm, EnsureTap, DeleteTap),
    PublishPorts: (UpdateVm,),
    ConfigureGuest: (StartVm, UpdateVm),
    ProvisionVm: (StartVm, UpdateVm, ConfigureGuest),
    ShipWorkspace: (UpdateVm, EnsureTap, ConfigureGuest, ProvisionVm),
    AwaitReady: (StartVm, ConfigureGuest, ProvisionVm),
    TrashVolumes: (StopVm, TrashVm),
}


def order(actions: Sequence[Action], observed: ObservedState) -> tuple[Step, ...]:
    """Draws the edges and sorts; actions that wait for nothing keep the order in which they were given."""
    edges = _Edges(actions, observed)
    return _sorted(actions, {action.id: edges.needs(action) for action in actions})


class _Edges:
    """The rules that reach beyond one VM, each for a reason."""

    def __init__(self, actions: Sequence[Action], observed: ObservedState) -> None:
        self._actions = actions
        self._observed = observed
        self._builds: dict[str, str] = {}
        self._tools: list[str] = []
        self._bridges: dict[str, EnsureBridge] = {}
        self._rules: dict[str, EnsureRules] = {}
        self._deleted: list[DeleteBridge] = []
        self._of_vm: defaultdict[str, list[Action]] = defaultdict(list)
        self._approvals: dict[str, str] = {}
        for action in actions:
            if isinstance(action, FetchKernel):
                self._builds[action.kernel.id] = action.id
            elif isinstance(action, FetchTools):
                self._tools = [action.id]
            elif isinstance(action, BuildImage):
                self._builds[action.image.id] = action.id
            elif isinstance(action, EnsureBridge):
                self._bridges[action.name] = action
            elif isinstance(action, EnsureRules):
                self._rules[action.name] = action
            elif isinstance(action, DeleteBridge):
                self._deleted.append(action)
            elif isinstance(action, ApproveRemoval):
                self._approvals.update(dict.fromkeys(action.vms, action.id))
            elif isinstance(action, (*_BEFORE, StopVm)):
                self._of_vm[action.name].append(action)
        self._released = self._releases()
        self._makes_room = self._room()
        self._gives_way = self._ports_that_move()
        self._depends = graph(actions, observed.vms)
        self._dependents: defaultdict[str, list[str]] = defaultdict(list)
        for name, others in self._depends.items():
            for other in others:
                self._dependents[other].append(name)

    def needs(self, action: Action) -> list[str]:
        """The ids of what `action` waits for."""
        if isinstance(action, ForgetEnvironment):
            return [other.id for other in self._actions if other is not action]
        if isinstance(action, DeleteBridge):
            return self._before_bridge_goes(action.name)
        if isinstance(action, EnsureRules):
            return self._before_rules(action)
        mine = self._of_vm.get(action.name, [])
        found = _ids(mine, *self._before(action))
        if isinstance(action, EnsureBridge):
            found += self._makes_room.get(action.name, [])
        if isinstance(action, EnsureTap):
            found += [made[action.network].id for made in (self._bridges, self._rules) if action.network in made]
        if isinstance(action, StopVm) and action.restart:
            found += self._bridge_of(mine)
        if isinstance(action, (CreateVm, UpdateVm, StartVm)) and str(action.address) in self._released:
            # Two guests with one address would both be wrong.
            found.append(self._released[str(action.address)])
        found += self._builds_before(action, mine)
        if isinstance(action, StartVm):
            found += self._up_first(action)
            if action.network is not None and action.network.name in self._rules:
                # No VM runs on a network whose rules do not know it.
                found.append(self._rules[action.network.name].id)
        if isinstance(action, StopVm):
            found += [i for name in self._dependents[action.name] for i in _ids(self._of_vm.get(name, ()), StopVm)]
        if action.name in self._approvals and isinstance(action, (StopVm, DeleteTap, TrashVm)):
            found.append(self._approvals[action.name])
        return found

    def _before(self, action: Action) -> tuple[type, ...]:
        taps = self._observed.taps
        if isinstance(action, EnsureTap) and not isinstance(taps, Unknown) and action.name not in taps:
            # One that is gone comes back at once: its VMM, which lost it for good, may take long to stop in order.
            return (TrashVm,)
        return _BEFORE.get(type(action), ())

    def _up_first(self, action: StartVm) -> list[str]:
        """What a VM depends on is started before it, and waited for where that was asked for."""
        needs_ready = {d.vm for d in action.vm.depends_on if d.on is DependsOn.READY}
        found = []
        for name in self._depends.get(action.name, ()):
            theirs = self._of_vm.get(name, ())
            awaited = _ids(theirs, AwaitReady) if name in needs_ready else []
            found += awaited or _ids(theirs, StartVm)
        return found

    @staticmethod
    def _stands_on_builds(action: Action) -> bool:
        """A VM is stopped to be changed only once what it will need is there: a failed build costs nobody a VM."""
        match action:
            case CreateVm() | StartVm():
                return True
            case StopVm():
                return action.restart
            case TrashVm():
                return action.recreate
            case _:
                return False

    def _builds_before(self, action: Action, mine: Iterable[Action]) -> list[str]:
        if isinstance(action, FetchKernel) and isinstance(action.kernel.source, ImageKernel):
            image = action.kernel.source.image
            return [self._builds[image]] if image in self._builds else []
        if isinstance(action, BuildImage) and isinstance(action.image.source, BuiltImage):
            base = action.image.source.base
            return [self._builds[base]] if base in self._builds else []
        if not self._stands_on_builds(action):
            return []
        specs = [action.vm for action in mine if isinstance(action, (CreateVm, StartVm))]
        wanted = dict.fromkeys(identity for vm in specs for identity in (vm.image_id, vm.kernel_id))
        found = [self._builds[identity] for identity in wanted if identity in self._builds]
        return found + (self._tools if any(isinstance(action, StartVm) for action in mine) else [])

    def _bridge_of(self, mine: Iterable[Action]) -> list[str]:
        """As with builds: the bridge that a restarted VM will need, unless that one has to wait for VMs to stop."""
        networks = {action.network.name for action in mine if isinstance(action, StartVm) and action.network}
        return [self._bridges[n].id for n in sorted(networks) if n in self._bridges and n not in self._makes_room]

    def _before_bridge_goes(self, network: str) -> list[str]:
        found = []
        for name, actions in self._of_vm.items():
            have = self._observed.vms.get(name)
            if have is None or network in (have.spec.network, have.network):
                found += _ids(actions, StopVm, DeleteTap)
        return found

    def _before_rules(self, action: EnsureRules) -> list[str]:
        """Rules that a VM is no longer in cut it off, and it may have something to write until it has stopped."""
        found = [self._bridges[action.name].id] if action.name in self._bridges else []
        stays = {(member.vm, member.address) for member in action.rules.vms}
        wanted = {(port.host_port, port.protocol) for port in action.rules.ports}
        for name, actions in self._of_vm.items():
            have = self._observed.vms.get(name)
            if have is None:
                continue
            if have.network == action.name:
                waits = (name, have.lease) not in stays
            else:
                # The VMM of a user-mode network has its ports for as long as it runs.
                waits = any((port.host_port, port.protocol) in wanted for port in have.spec.ports)
            if waits:
                found += _ids(actions, StopVm)
        return found + self._gives_way.get(action.name, [])

    def _ports_that_move(self) -> dict[str, list[str]]:
        """Network → the changes of other networks that let go of a port of the host which it is to publish.

        Networks that exchange ports do not wait for each other; the helper refuses them.
        """
        had: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        for vm in self._observed.vms.values():
            for port in vm.spec.ports if vm.bridged else ():
                had[port.host_port, port.protocol].add(vm.network)
        let_go: dict[str, str] = {name: action.id for name, action in self._rules.items()}
        let_go |= {delete.name: delete.id for delete in self._deleted}
        moves = {
            name: sorted(
                {n for port in action.rules.ports for n in had[port.host_port, port.protocol] if n in let_go} - {name}
            )
            for name, action in self._rules.items()
        }
        return {
            name: [let_go[n] for n in others if not _leads_to(n, name, moves)]
            for name, others in moves.items()
            if others
        }

    def _room(self) -> dict[str, list[str]]:
        """Network → what must happen before its bridge gets its address: two bridges cannot serve one network.

        Networks that exchange their addresses would wait for each other; they do not wait, and the helper refuses.
        """
        there = self._observed.bridges
        if isinstance(there, Unknown):
            return {}
        served = {name: [address.network for address in bridge.addresses] for name, bridge in there.items()}
        table: dict[str, list[str]] = {}
        moves: dict[str, list[str]] = {}
        for name, action in self._bridges.items():
            wanted = action.network.cidr
            in_the_way = {n for n, networks in served.items() if any(wanted.overlaps(other) for other in networks)}
            gone = [delete.id for delete in self._deleted if delete.name in in_the_way]
            moves[name] = [n for n in self._bridges if n != name and n in in_the_way]
            if gone:
                table[name] = gone
        for name, others in moves.items():
            waits = [self._bridges[n].id for n in others if not _leads_to(n, name, moves)]
            if waits:
                table[name] = [*table.get(name, []), *waits]
        return table

    def _releases(self) -> dict[str, str]:
        """Address → the stop of the VM that has it and is about to lose it."""
        table = {}
        for name, actions in self._of_vm.items():
            have = self._observed.vms.get(name)
            stops = _ids(actions, StopVm)
            if have is None or have.lease is None or not stops:
                continue
            if not any(isinstance(a, (CreateVm, StartVm)) and a.address == have.lease for a in actions):
                table[str(have.lease)] = stops[0]
        return table


def _leads_to(start: str, goal: str, graph: Mapping[str, list[str]]) -> bool:
    seen: set[str] = set()
    todo = [start]
    while todo:
        node = todo.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            todo += graph.get(node, [])
    return False


def _ids(actions: Iterable[Action], *kinds: type) -> list[str]:
    return [action.id for action in actions if isinstance(action, kinds)]


def _sorted(actions: Sequence[Action], needs: Mapping[str, list[str]]) -> tuple[Step, ...]:
    """Kahn's algorithm. A cycle would be a mistake in the rules above."""
    waiting = {action.id: set(needs[action.id]) - {action.id} for action in actions}
    dependents: defaultdict[str, list[str]] = defaultdict(list)
    for identity, wanted in waiting.items():
        for need in wanted:
            dependents[need].append(identity)
    by_id = {action.id: action for action in actions}
    ready = [action.id for action in actions if not waiting[action.id]]
    steps: list[Step] = []
    for identity in ready:  # grows while it is walked
        steps.append(Step(by_id[identity], tuple(dict.fromkeys(needs[identity]))))
        for dependent in sorted(dependents[identity]):
            waiting[dependent].discard(identity)
            if not waiting[dependent]:
                ready.append(dependent)
    if len(steps) != len(actions):
        missing = sorted(set(by_id) - {step.id for step in steps})
        raise AssertionError(f"actions wait for each other: {', '.join(missing)}")
    return tuple(steps)
