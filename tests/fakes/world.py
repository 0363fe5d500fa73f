"""A model of a host: applies actions to an ObservedState the way the real ones change a real one.

Foreign things are carried along in `foreign`, which no action can reach, and as unlabelled entries that the
observation never shows; the tests compare them before and after.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

from reconciler.model import actions as a
from reconciler.model.changes import boot_facts, creation_facts, published
from reconciler.model.ids import mac_address
from reconciler.model.inside import AS_STARTED
from reconciler.model.observed import ObservedState, ObservedVm, ObservedVolume, Unknown
from reconciler.model.observed_links import ObservedBridge, ObservedRules, ObservedTap
from reconciler.model.outcome import Result
from reconciler.model.plan import Plan
from reconciler.model.rules import NetworkRules
from reconciler.model.vm import Vm
from reconciler.plan.inside import wanted_facts, wanted_work


def bridge_name(network: str) -> str:
    return f"bgb-{network}"[:15]


def tap_name(vm: str) -> str:
    return f"bgt-{vm}"[:15]


class RefusedError(Exception):
    """What the host does not do, as the root helper or the disk driver would say."""


class World:
    """A mutable host around an immutable observation."""

    def __init__(self, state: ObservedState) -> None:
        self.state = state
        self.trash: list[ObservedVm] = []
        self.trashed_volumes: list[ObservedVolume] = []
        self.killed: list[str] = []
        self.silent: set[str] = set()
        """VMs that never answer."""
        self.loaded: dict[str, NetworkRules] = {}
        """The rules that were replaced here, by network."""
        self._next_pid = 10_000

    def run(self, plan: Plan, fail: frozenset[str] = frozenset()) -> dict[str, Result]:
        """Executes a plan in order; the steps named in `fail` fail, and what needs them is skipped."""
        results: dict[str, Result] = {}
        for step in plan.steps:
            assert all(need in results for need in step.needs), f"{step.id} comes before what it needs"
            if any(results[need] is not Result.DONE for need in step.needs):
                results[step.id] = Result.SKIPPED
            elif step.id in fail:
                results[step.id] = Result.FAILED
            else:
                try:
                    self.apply(step.action)
                except RefusedError:
                    results[step.id] = Result.FAILED
                else:
                    results[step.id] = Result.DONE
        return results

    def apply(self, action: a.Action) -> None:  # one case per member of a closed union
        s = self.state
        vms, bridges, taps = dict(s.vms), s.bridges, s.taps
        assert not isinstance(bridges, Unknown) and not isinstance(taps, Unknown)
        bridges, taps = dict(bridges), dict(taps)
        assert not isinstance(s.rules, Unknown)
        assert not isinstance(s.images, Unknown) and not isinstance(s.kernels, Unknown)
        match action:
            case a.FetchKernel():
                self.state = replace(s, kernels=s.kernels | {action.kernel.id})
            case a.FetchTools():
                assert not isinstance(s.tools, Unknown)
                self.state = replace(s, tools=s.tools | {action.tools.id})
            case a.BuildImage():
                self.state = replace(s, images=s.images | {action.image.id})
            case a.EnsureBridge():
                n = action.network
                old = bridges.get(n.name)
                if any(a.network.overlaps(n.cidr) for b in bridges.values() if b != old for a in b.addresses):
                    # Recorded all the same: the entry comes first.
                    self.state = replace(s, networks={**s.networks, n.name: n})
                    raise RefusedError(f"{n.cidr} is taken")
                bridges[n.name] = ObservedBridge(
                    name=bridge_name(n.name),
                    mtu=n.mtu,
                    up=True,
                    addresses=(IPv4Interface(f"{n.gateway}/{n.cidr.prefixlen}"),),
                    addresses6=() if n.cidr6 is None else (IPv6Interface(f"{n.gateway6}/{n.cidr6.prefixlen}"),),
                    ports=old.ports if old else (),
                )
                self.state = replace(s, bridges=bridges, networks={**s.networks, n.name: n})
            case a.EnsureRules():
                if action.name not in bridges:
                    raise RefusedError("rules need their bridge")
                self._rules_make_sense(action)
                rules = {**s.rules, action.name: ObservedRules(digest=action.rules.digest, intact=True)}
                self.loaded[action.name] = action.rules
                self.state = replace(s, rules=rules, networks={**s.networks, action.name: action.network})
            case a.DeleteBridge():
                gone = bridges.pop(action.name, None)
                self.loaded.pop(action.name, None)
                if gone:
                    taps = {k: replace(t, master=None) if t.master == gone.name else t for k, t in taps.items()}
                networks = {k: v for k, v in s.networks.items() if k != action.name}
                rules = {k: v for k, v in s.rules.items() if k != action.name}
                self.state = replace(s, bridges=bridges, taps=taps, networks=networks, rules=rules)
            case a.EnsureTap():
                if action.network not in bridges:
                    raise RefusedError("a tap needs its bridge")
                old_tap = taps.get(action.name)
                taps[action.name] = ObservedTap(
                    name=tap_name(action.name),
                    mtu=action.mtu,
                    up=True,
                    # Made under a running VMM it is not the one that it holds.
                    carrier=old_tap.carrier if old_tap else False,
                    master=bridges[action.network].name,
                )
                self.state = replace(s, taps=taps)
            case a.DeleteTap():
                assert not (action.name in vms and vms[action.name].running), "a running VM would lose its tap"
                taps.pop(action.name, None)
                self.state = replace(s, taps=taps)
            case a.CreateVm():
                old_vm = vms.get(action.name)
                assert old_vm is None or not old_vm.disk, "never over an existing disk"
                assert action.vm.image_id in s.images
                self._address_is_free(action.name, action)
                vms[action.name] = ObservedVm(
                    name=action.name,
                    id=f"id-{action.name}-{len(self.trash)}",
                    spec=action.vm,
                    mac=mac_address(s.install, s.environment, action.name),
                    address=action.address,
                    created=creation_facts(action.vm),
                    disk=True,
                    halted=old_vm.halted if old_vm else None,
                    generation=old_vm.generation if old_vm else s.generation,
                )
                self.state = replace(s, vms=vms)
            case a.UpdateVm():
                vm = vms[action.name]
                halted = None if action.release else vm.halted
                vms[action.name] = replace(vm, spec=action.vm, address=action.address, halted=halted)
                self.state = replace(s, vms=vms)
            case a.StartVm():
                vm = vms[action.name]
                assert vm.disk and not vm.running
                assert vm.created == creation_facts(action.vm) or vm.spec == action.vm
                assert vm.spec.disk <= action.vm.disk or vm.spec.image_id != action.vm.image_id
                assert action.vm.image_id in s.images and action.vm.kernel_id in s.kernels
                self._address_is_free(action.name, action)
                if action.vm.bridged:
                    assert action.network is not None and action.address is not None
                    assert action.address in action.network.cidr
                    if action.network.name not in bridges:
                        raise RefusedError("a tap needs its bridge")
                    self._rules_know(action)
                    # Like the real start, which makes sure of the tap itself.
                    taps[action.name] = ObservedTap(
                        name=tap_name(action.name),
                        mtu=action.network.mtu,
                        up=True,
                        carrier=True,
                        master=bridges[action.network.name].name,
                    )
                self._next_pid += 1
                booted = boot_facts(action.vm, action.network, action.address)
                facts = self._facts(action.vm)
                if facts["files"]:
                    booted["files"] = facts["files"] if action.vm.network == "none" else AS_STARTED
                if facts["env"]:
                    booted["env"] = facts["env"]
                vms[action.name] = replace(
                    vm,
                    spec=action.vm,
                    address=action.address,
                    booted=booted,
                    pid=self._next_pid,
                    started_at=1.0,
                    ready_at=None,
                    halted=None,
                    ended=None,
                    uptime=0.0,
                )
                volumes = {(v.vm, v.name): v for v in s.volumes}
                for v in action.vm.volumes:
                    old_volume = volumes.get((action.name, v.name))
                    assert old_volume is None or old_volume.size <= v.size, "a volume never shrinks"
                    volumes[action.name, v.name] = ObservedVolume(vm=action.name, name=v.name, size=v.size)
                self.state = replace(s, vms=vms, taps=taps, volumes=tuple(volumes.values()))
            case a.StopVm():
                vm = vms[action.name]
                vms[action.name] = replace(
                    vm,
                    pid=None,
                    started_at=None,
                    ready_at=None,
                    uptime=None,
                    halted=action.halt or vm.halted,
                )
                if action.name in taps:
                    taps[action.name] = replace(taps[action.name], carrier=False)
                self.state = replace(s, vms=vms, taps=taps)
            case a.PublishPorts():
                vm = vms[action.name]
                assert vm.running and vm.network == "user"
                booted = {key: value for key, value in vm.booted.items() if key != "ports"}
                booted |= {"ports": published(action.ports)} if action.ports else {}
                vms[action.name] = replace(vm, booted=booted)
                self.state = replace(s, vms=vms)
            case a.ConfigureGuest():
                vm = vms[action.name]
                assert vm.running and vm.network != "none"
                facts = self._facts(action.vm)
                booted = {key: value for key, value in vm.booted.items() if key not in facts}
                booted |= {key: value for key, value in facts.items() if value}
                vms[action.name] = replace(vm, booted=booted)
                self.state = replace(s, vms=vms)
            case a.ProvisionVm():
                vm = vms[action.name]
                assert vm.running and vm.network != "none"
                vms[action.name] = replace(vm, booted={**vm.booted, "provision": wanted_work(action.vm, s)})
                self.state = replace(s, vms=vms)
            case a.AwaitReady():
                vm = vms[action.name]
                if not vm.running or action.name in self.silent:
                    raise RefusedError("it does not answer")
                vms[action.name] = replace(vm, ready_at=1.0)
                self.state = replace(s, vms=vms)
            case a.ShipWorkspace():
                vm = vms[action.name]
                assert vm.running and vm.ready_at is not None
                vms[action.name] = replace(vm, shipped=action.workspace.guest)
                self.state = replace(s, vms=vms)
            case a.ApproveRemoval():
                for name in action.vms:
                    vms[name] = replace(vms[name], condemned=action.state)
                self.state = replace(s, vms=vms)
            case a.TrashVm():
                vm = vms.pop(action.name)
                assert not vm.running, "never while it runs"
                self.trash.append(vm)
                self.state = replace(s, vms=vms)
                if action.with_volumes:
                    self._trash_volumes(action.name)
            case a.TrashVolumes():
                self._trash_volumes(action.name)
            case a.KillStray():
                self.state = replace(s, strays=tuple(x for x in s.strays if x.pid != action.pid))
            case a.SweepStaging():
                self.state = replace(s, corpses=tuple(c for c in s.corpses if c != action.name))
            case a.ForgetEnvironment() | a.RestoreVm():
                pass

    def _facts(self, vm: Vm) -> dict[str, str]:
        try:
            return wanted_facts(vm, self.state)
        except KeyError:
            raise RefusedError("what is not there cannot be read") from None

    def _trash_volumes(self, vm: str) -> None:
        self.trashed_volumes += [v for v in self.state.volumes if v.vm == vm]
        self.state = replace(self.state, volumes=tuple(v for v in self.state.volumes if v.vm != vm))

    def _rules_make_sense(self, action: a.EnsureRules) -> None:
        """What the root helper would say of them."""
        addresses = [member.address for member in action.rules.vms]
        assert len(addresses) == len(set(addresses)), "one address for two VMs"
        assert all(address in action.network.cidr for address in addresses)
        assert {port.vm for port in action.rules.ports} <= {member.vm for member in action.rules.vms}
        mine = {(port.host_port, port.protocol) for port in action.rules.ports}
        for name, other in self.loaded.items():
            if name != action.name and mine & {(port.host_port, port.protocol) for port in other.ports}:
                raise RefusedError("a port is taken")

    def _rules_know(self, action: a.StartVm) -> None:
        """No VM runs without its anti-spoofing; rules of before this world are not known."""
        assert action.network is not None and not isinstance(self.state.rules, Unknown)
        there = self.state.rules.get(action.network.name)
        assert there is not None and there.intact, "a network without rules"
        rules = self.loaded.get(action.network.name)
        if rules is not None:
            assert (action.name, action.address) in {(member.vm, member.address) for member in rules.vms}

    def _address_is_free(self, name: str, action: a.CreateVm | a.StartVm) -> None:
        users = [
            vm.name
            for vm in self.state.vms.values()
            if vm.running
            and vm.name != name
            and action.address is not None
            and vm.booted.get("address") == str(action.address)
            and vm.spec.network == action.vm.network
        ]
        assert not users, f"{action.address} of {name} is in use by {users}"
