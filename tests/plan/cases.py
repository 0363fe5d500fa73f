"""Planner cases as data: files in `tests/cases/plan`, each a list of cases.

name      what the case shows, as a sentence
was       the file that the host was converged to before (absent: nothing is there)
drift     what happened to the host since: `{vm: NAME, FIELD: VALUE}` and likewise for tap, bridge and rules, `{gone: KIND/NAME}`,
          `{unknown: PART}`, `{source: HOST_PATH, is: DIGEST}` or `{source: HOST_PATH, unreadable: WHY}`,
          likewise `{secret: NAME, …}`, `{ghost: TAP}`, `{volume: VM/NAME, size: SIZE}`, `{stray: VM_ID}`, `{corpse: PATH}`
desired   the file as it is now; `same` is `was`; with `delete: true` instead, the environment goes
recreate  whether --allow-recreate was given
unattended  the plan is a controller's: `{}`, or with `prune` and `maxDelete` (a percentage) as in the file, and
          `approved: true` if what the plan would wait for was approved
steps     what is planned, in order: `do`, `because`, `needs`
held      what is held back: `what`, `because`
releases  what would let each of those go, where a case is about that

A file has `networks` (NAME: CIDR, or fields), `images` (NAME: packages, or `{oci: REF, digest: DIGIT}`
of an image of a registry, unresolved without a digest; `base` unless given), `kernel` (a package) and `vms`
(NAME: fields that differ from a small running VM without a network). Identities are written as `…`.
What `files` name on the host can be read unless a drift says otherwise.
The VMs of `was` are older than the present content of the file, and were all seen ready.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from typing import Any

from reconciler.lib.units import parse_duration, parse_size
from reconciler.model.artifacts import GUEST_TOOLS, DebianImage, DebianKernel, Image, Kernel, OciImage
from reconciler.model.desired import DesiredState
from reconciler.model.inside import GuestFile, ProvisionStep, Secret, Variable
from reconciler.model.observed import Ended, ObservedState, ObservedVm, ObservedVolume, Stray, Unknown
from reconciler.model.observed_links import ObservedTap
from reconciler.model.plan import Plan
from reconciler.model.vm import (
    Dependency,
    DependsOn,
    Egress,
    Network,
    OnChange,
    Protocol,
    Publication,
    Ready,
    RestartPolicy,
    RunState,
    Vm,
    Volume,
    Workspace,
)
from reconciler.plan import PlanOptions, plan, plan_removal
from tests.fakes.world import World

_IDENTITY = re.compile(r"\b(?:[0-9a-f]{16}|[0-9a-f]{12})\b")
KEYS = {"name", "was", "drift", "desired", "delete", "recreate", "unattended", "steps", "held", "releases"}


def plan_of(case: Mapping[str, Any]) -> Plan:
    """The plan for one case."""
    if unknown := set(case) - KEYS:
        raise ValueError(f"{case['name']}: unknown key {min(unknown)!r}")
    was = _desired(case.get("was") or {})
    now = was if case.get("desired", "same") == "same" else _desired(case["desired"])
    hosts = {file.host for state in (was, now) for vm in state.vms.values() for file in vm.files if file.host}
    hosts |= {step.script for state in (was, now) for vm in state.vms.values() for step in vm.provision if step.script}
    sources = dict.fromkeys(sorted(hosts), "as it was")
    values = dict.fromkeys((s for state in (was, now) for vm in state.vms.values() for s in vm.secrets), "as it was")
    tools = frozenset({GUEST_TOOLS.id})
    world = World(
        ObservedState(install="install", environment="env", generation=1, tools=tools, sources=sources, secrets=values)
    )
    for _ in range(3):
        world.run(plan(was, world.state))
    assert plan(was, world.state).empty, "a case begins with a host that had converged"
    seen = {name: replace(vm, ready_at=1.0 if vm.running else None) for name, vm in world.state.vms.items()}
    observed = replace(world.state, vms=seen, generation=2)
    for change in case.get("drift", ()):
        observed = _drifted(observed, dict(change))
    if case.get("delete"):
        return plan_removal(observed)
    desired = now
    options = PlanOptions(allow_recreate=case.get("recreate", False))
    if "unattended" not in case:
        return plan(desired, observed, options)
    given = dict(case["unattended"])
    options = replace(
        options,
        unattended=True,
        prune=given.pop("prune", True),
        max_delete=int(given.pop("maxDelete", "100%").removesuffix("%")) / 100,
    )
    if given.pop("approved", False):
        waited_for = plan(desired, observed, options).approval
        assert waited_for is not None
        options = replace(options, approved=frozenset({waited_for}))
    assert not given, f"unknown: {given}"
    return plan(desired, observed, options)


def shown(made: Plan) -> dict[str, list[dict[str, Any]]]:
    """A plan as the cases write it."""
    return {
        "steps": [
            {"do": s.id, "because": _IDENTITY.sub("…", s.action.reason), "needs": list(s.needs)} for s in made.steps
        ],
        "held": [{"what": h.object, "because": _IDENTITY.sub("…", h.reason)} for h in made.held],
        "releases": [_IDENTITY.sub("…", h.release) for h in made.held],
    }


def _desired(text: Mapping[str, Any]) -> DesiredState:
    kernel = Kernel(
        name="debian", source=DebianKernel(suite="bookworm", package=text.get("kernel", "linux-image-cloud-amd64"))
    )
    images = {name: _image(name, given) for name, given in text.get("images", {"base": []}).items()}
    networks = {name: _network(name, fields) for name, fields in text.get("networks", {}).items()}
    vms = {name: _vm(name, fields or {}, images, kernel) for name, fields in text.get("vms", {}).items()}
    if not text:
        return DesiredState(environment="env")
    return DesiredState(environment="env", networks=networks, kernels={"debian": kernel}, images=images, vms=vms)


def _image(name: str, given: Any) -> Image:
    if isinstance(given, list):
        return Image(name=name, source=DebianImage(suite="bookworm", packages=tuple(given)), kernel="debian")
    digest = f"sha256:{str(given['digest']) * 64}" if "digest" in given else ""
    return Image(name=name, source=OciImage(ref=given["oci"], digest=digest), kernel="debian")


def _network(name: str, fields: str | Mapping[str, Any]) -> Network:
    given: dict[str, Any] = {"cidr": fields} if isinstance(fields, str) else dict(fields)
    cidr = IPv4Network(given["cidr"])
    egress = given.get("egress")
    return Network(
        name=name,
        cidr=cidr,
        mtu=given.get("mtu", 1500),
        cidr6=IPv6Network(given["cidr6"]) if "cidr6" in given else None,
        nat=given.get("nat", True),
        isolated=given.get("isolated", False),
        egress=None if egress is None else tuple(Egress(to=to) for to in egress),
    )


def _vm(name: str, fields: Mapping[str, Any], images: Mapping[str, Image], kernel: Kernel) -> Vm:
    given = dict(fields)
    image = images[given.pop("image", next(iter(images)))]
    network = given.pop("network", "none")
    volumes, files = given.pop("volumes", {}), given.pop("files", ())
    provision = given.pop("provision", ())
    env, secrets = given.pop("env", {}), given.pop("secrets", {})
    ports = sorted(_port(text) for text in given.pop("ports", ()))
    needs, ttl = given.pop("dependsOn", {}), given.pop("ttl", None)
    shipped = given.pop("workspace", None)
    address, port, state = given.pop("address", None), given.pop("port", None), given.pop("state", "running")
    return Vm(
        name=name,
        image=image.name,
        image_id=image.id,
        image_digest=image.digest,
        kernel=kernel.name,
        kernel_id=kernel.id,
        network=network,
        memory=parse_size(given.pop("memory", "512MiB")),
        disk=parse_size(given.pop("disk", "4GiB")),
        cpus=given.pop("cpus", 1),
        address=IPv4Address(address) if address else None,
        ports=tuple(ports),
        ready=Ready(ssh=network != "none", port=port, timeout=given.pop("timeout", 90.0)),
        state=RunState(state),
        restart=RestartPolicy(given.pop("restart", "always")),
        depends_on=tuple(Dependency(vm=other, on=DependsOn(on)) for other, on in sorted(needs.items())),
        on_change=OnChange(given.pop("onChange", "restart")),
        ttl=parse_duration(ttl) if ttl else None,
        workspace=Workspace(host="/src", guest=shipped) if shipped else None,
        volumes=tuple(Volume(name=n, size=parse_size(size), mount=f"/{n}") for n, size in volumes.items()),
        files=tuple(GuestFile(**file) for file in files),
        env=tuple(Variable(name=name, value=value) for name, value in env.items()),
        provision=tuple(ProvisionStep(**step) for step in provision),
        secrets=tuple(Secret(name=name, **fields) for name, fields in secrets.items()),
        **given,
    )


def _port(text: str) -> Publication:
    *address, host, guest = text.split(":")
    return Publication(host_address="".join(address), host_port=int(host), protocol=Protocol.TCP, guest_port=int(guest))


def _drifted(state: ObservedState, change: dict[str, Any]) -> ObservedState:
    assert not isinstance(state.bridges, Unknown) and not isinstance(state.taps, Unknown)
    assert not isinstance(state.rules, Unknown)
    vms, taps, bridges, rules = dict(state.vms), dict(state.taps), dict(state.bridges), dict(state.rules)
    kind, name = next(iter(change.items()))
    fields = dict(list(change.items())[1:])
    match kind:
        case "vm":
            vms[name] = _vm_drift(vms[name], fields)
        case "tap":
            taps[name] = replace(taps[name], **fields)
        case "bridge":
            if "addresses" in fields:
                fields["addresses"] = tuple(IPv4Interface(a) for a in fields["addresses"])
            bridges[name] = replace(bridges[name], **fields)
        case "rules":
            rules[name] = replace(rules[name], **fields)
        case "gone":
            return _gone(state, *name.split("/"))
        case "unknown":
            return replace(state, **{name: Unknown("Permission denied")})
        case "ghost":
            taps[name] = ObservedTap(name=f"bgt-{name}", mtu=1500, up=True, carrier=False)
        case "volume":
            vm, _, volume = name.partition("/")
            volume_there = ObservedVolume(vm=vm, name=volume, size=parse_size(fields["size"]))
            return replace(state, volumes=(*state.volumes, volume_there))
        case "source":
            there = Unknown(fields["unreadable"]) if "unreadable" in fields else fields["is"]
            return replace(state, sources={**state.sources, name: there})
        case "secret":
            now = Unknown(fields["unreadable"]) if "unreadable" in fields else fields["is"]
            return replace(state, secrets={s: now if s.name == name else old for s, old in state.secrets.items()})
        case "stray":
            return replace(state, strays=(Stray(vm_id=name, pid=4242),))
        case "corpse":
            return replace(state, corpses=(name,))
        case _:
            raise ValueError(f"unknown drift {kind!r}")
    return replace(state, vms=vms, taps=taps, bridges=bridges, rules=rules)


def _vm_drift(vm: ObservedVm, fields: Mapping[str, Any]) -> ObservedVm:
    given = dict(fields)
    if "address" in given:
        given["address"] = IPv4Address(given["address"])
    if given.get("ended"):
        given |= {"ended": Ended(given["ended"]), "pid": None}
    if given.get("halted"):
        given |= {"started_at": None}
    if "booted" in given:
        given["booted"] = {**vm.booted, **given["booted"]}
    return replace(vm, **given)


def _gone(state: ObservedState, kind: str, name: str) -> ObservedState:
    match kind:
        case "tap":
            return replace(state, taps={k: v for k, v in dict(state.taps).items() if k != name})  # type: ignore[call-overload]
        case "bridge":
            bridge = state.bridges[name]  # type: ignore[index]
            taps = {k: replace(t, master=None) if t.master == bridge.name else t for k, t in state.taps.items()}  # type: ignore[union-attr]
            bridges = {k: v for k, v in state.bridges.items() if k != name}  # type: ignore[union-attr]
            return replace(state, bridges=bridges, taps=taps)
        case "rules":
            return replace(state, rules={k: v for k, v in state.rules.items() if k != name})  # type: ignore[union-attr]
        case "network":
            return replace(state, networks={k: v for k, v in state.networks.items() if k != name})
        case "images":
            return replace(state, images=frozenset())
        case "kernels":
            return replace(state, kernels=frozenset())
        case "tools":
            return replace(state, tools=frozenset())
    raise ValueError(f"unknown kind {kind!r}")
