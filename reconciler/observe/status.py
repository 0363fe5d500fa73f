"""What is shown of each object: the last state that was asked for, beside what the host shows now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.model.nouns import Noun
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.status import Condition, ConditionType, ObjectStatus, State
from reconciler.model.vm import Publication, RunState, Vm
from reconciler.observe.guests import Readiness

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState


class ArtifactRef(NamedTuple):
    """An image or a kernel, by label and identity."""

    kind: Noun
    name: str
    identity: str


def vm_status(environment: str, vm: ObservedVm, readiness: Readiness, failure: str | None = None) -> ObjectStatus:
    """`failure` is the error of the last action on it, if that failed."""
    spec = vm.spec
    if not vm.running:
        state = State.STOPPED if spec.state is RunState.STOPPED and readiness.reason != "GuestFailed" else State.FAILED
        if state is State.FAILED and vm.started_at is None and failure is None:
            state = State.STOPPED
    else:
        state = State.READY if readiness.ready else State.STARTING
    # What was tried last tells more than that it is yet to be done.
    inside = readiness.reason in ("NotConfigured", "NotProvisioned")
    message = failure if failure and (inside or not vm.running) else readiness.message
    conditions = [
        Condition(
            type=ConditionType.READY,
            status=readiness.ready,
            reason=readiness.reason,
            message=message,
            since=(vm.ready_at if readiness.ready else vm.started_at) if vm.running else None,
        )
    ]
    if spec.protect:
        conditions.append(Condition(type=ConditionType.PROTECTED, status=True, reason="ProtectSet"))
    return ObjectStatus(
        kind=Noun.VM,
        name=vm.name,
        environment=environment,
        state=state,
        ready=readiness.ready,
        address=str(vm.address) if vm.address else None,
        conditions=tuple(conditions),
        details={
            "id": vm.id,
            "image": spec.image,
            "kernel": spec.kernel,
            "network": spec.network,
            "cpus": spec.cpus,
            "memory": spec.memory,
            "disk": spec.disk,
            "pid": vm.pid,
            "mac": vm.mac,
            "forwards": dict(vm.forwards) if vm.running else {},
            "ports": [_published(port) for port in spec.ports],
            "protect": spec.protect,
            "files": [file.guest for file in spec.files],
            "env": [variable.name for variable in spec.env],
            "secrets": [secret.name for secret in spec.secrets],
            "provision": len(spec.provision),
            "volumes": [{"name": v.name, "size": v.size, "mount": v.mount} for v in spec.volumes],
            "ttl": spec.ttl,
            "workspace": _workspace(spec),
            "createdAt": vm.created_at,
            "startedAt": vm.started_at if vm.running else None,
        },
    )


def environment_status(
    desired: DesiredState | None, observed: ObservedState, vms: Mapping[str, ObjectStatus], failures: Mapping[str, str]
) -> list[ObjectStatus]:
    """Every object of an environment: what was asked for, and what is there without being asked for."""
    desired = desired or _nothing(observed.environment)
    return [
        *network_statuses(desired, observed, failures),
        *(
            _artifact(ArtifactRef(Noun.KERNEL, kernel.name, kernel.id), observed.kernels, desired.environment, failures)
            for kernel in desired.kernels.values()
        ),
        *(
            _artifact(ArtifactRef(Noun.IMAGE, image.name, image.id), observed.images, desired.environment, failures)
            for image in desired.images.values()
        ),
        *(
            vms.get(name) or _missing(Noun.VM, name, desired.environment, failures)
            for name in (*desired.vms, *sorted(set(vms) - set(desired.vms)))
        ),
        *_volumes(desired, observed),
        *_cache(desired, observed, failures),
    ]


def network_statuses(
    desired: DesiredState | None, observed: ObservedState, failures: Mapping[str, str]
) -> list[ObjectStatus]:
    """The networks alone."""
    desired = desired or _nothing(observed.environment)
    return [_network(name, desired, observed, failures) for name in sorted({*desired.networks, *observed.networks})]


def _nothing(environment: str) -> DesiredState:
    from reconciler.model.desired import DesiredState  # noqa: PLC0415  # `ps` does without

    return DesiredState(environment=environment)


def _cache(desired: DesiredState, observed: ObservedState, failures: Mapping[str, str]) -> list[ObjectStatus]:
    """The cache, where a policy looks after it."""
    seen, name = observed.cache, Noun.CACHE.value
    if desired.cache is None or seen is None:
        return []
    if isinstance(seen, Unknown):
        return [_unknown(Noun.CACHE, name, desired.environment, seen)]
    failure = failures.get(f"{Noun.CACHE}/{name}")
    reason = "Kept" if failure is None else "EvictionFailed"
    condition = Condition(type=ConditionType.READY, status=failure is None, reason=reason, message=failure or "")
    return [
        ObjectStatus(
            kind=Noun.CACHE,
            name=name,
            environment=desired.environment,
            state=State.PRESENT if failure is None else State.FAILED,
            ready=failure is None,
            conditions=(condition,),
            details={
                "used": seen.used,
                "limit": desired.cache.limits.most(seen.used, seen.free, seen.total),
                "free": seen.free,
                "entries": len(seen.entries),
            },
        )
    ]


def _missing(kind: Noun, name: str, environment: str, failures: Mapping[str, str]) -> ObjectStatus:
    message = failures.get(f"{kind}/{name}", "it has not been made")
    condition = Condition(type=ConditionType.READY, status=False, reason="Missing", message=message)
    return ObjectStatus(
        kind=kind, name=name, environment=environment, state=State.MISSING, ready=False, conditions=(condition,)
    )


def _unknown(kind: Noun, name: str, environment: str, why: Unknown) -> ObjectStatus:
    condition = Condition(type=ConditionType.READY, status=None, reason="Unknown", message=why.reason)
    return ObjectStatus(
        kind=kind, name=name, environment=environment, state=State.UNKNOWN, ready=False, conditions=(condition,)
    )


def _artifact(
    wanted: ArtifactRef, there: frozenset[str] | Unknown, environment: str, failures: Mapping[str, str]
) -> ObjectStatus:
    if isinstance(there, Unknown):
        return _unknown(wanted.kind, wanted.name, environment, there)
    if wanted.identity not in there:
        return _missing(wanted.kind, wanted.name, environment, failures)
    return ObjectStatus(
        kind=wanted.kind,
        name=wanted.name,
        environment=environment,
        state=State.PRESENT,
        ready=True,
        conditions=(Condition(type=ConditionType.READY, status=True, reason="Cached"),),
        details={"id": wanted.identity},
    )


def _network(name: str, desired: DesiredState, observed: ObservedState, failures: Mapping[str, str]) -> ObjectStatus:
    if isinstance(observed.bridges, Unknown):
        return _unknown(Noun.NETWORK, name, observed.environment, observed.bridges)
    bridge = observed.bridges.get(name)
    if bridge is None:
        return _missing(Noun.NETWORK, name, observed.environment, failures)
    spec = desired.networks.get(name) or observed.networks[name]
    rules, drifted = _rules(name, observed)
    ready = bridge.up and drifted.status is not True
    reason = "Up" if ready else "Down" if not bridge.up else drifted.reason
    on_it = [vm for vm in observed.vms.values() if vm.bridged and vm.network == name]
    return ObjectStatus(
        kind=Noun.NETWORK,
        name=name,
        environment=observed.environment,
        state=State.PRESENT if ready else State.FAILED,
        ready=ready,
        address=str(spec.gateway),
        conditions=(Condition(type=ConditionType.READY, status=ready, reason=reason), drifted),
        details={
            "interface": bridge.name,
            "cidr": str(spec.cidr),
            "cidr6": _text(spec.cidr6),
            "mtu": bridge.mtu,
            "nat": spec.nat,
            "dns": spec.dns,
            "isolated": spec.isolated,
            "egress": None if spec.egress is None else [str(rule) for rule in spec.egress],
            "rules": rules,
            "vms": [
                {"name": vm.name, "address": str(vm.lease), "address6": _text(spec.address6(vm.lease))}
                for vm in on_it
                if vm.lease is not None
            ],
            "ports": [{"vm": vm.name, **_published(port)} for vm in on_it for port in vm.spec.ports],
        },
    )


def _workspace(spec: Vm) -> dict[str, Any] | None:
    if spec.workspace is None:
        return None
    return {"host": spec.workspace.host, "guest": spec.workspace.guest, "untracked": spec.workspace.untracked}


def _published(port: Publication) -> dict[str, Any]:
    return {
        "hostAddress": port.host_address,
        "hostPort": port.host_port,
        "protocol": port.protocol.value,
        "guestPort": port.guest_port,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _rules(name: str, observed: ObservedState) -> tuple[str, Condition]:
    """In one word, and as a condition."""
    if isinstance(observed.rules, Unknown):
        word, status, reason, message = "unknown", None, "RulesUnknown", observed.rules.reason
    elif name not in observed.rules:
        word, status, reason, message = "missing", True, "RulesMissing", "the packet filter has no rules for it"
    elif not observed.rules[name].intact:
        word, status, reason, message = (
            "changed",
            True,
            "RulesChanged",
            "somebody changed its rules in the packet filter",
        )
    else:
        word, status, reason, message = "intact", False, "RulesInPlace", ""
    return word, Condition(type=ConditionType.DRIFTED, status=status, reason=reason, message=message)


def _volumes(desired: DesiredState, observed: ObservedState) -> list[ObjectStatus]:
    used = {(vm.name, v.name) for vm in observed.vms.values() for v in vm.spec.volumes}
    return [
        ObjectStatus(
            kind=Noun.VOLUME,
            name=f"{volume.vm}/{volume.name}",
            environment=observed.environment,
            state=State.PRESENT if (volume.vm, volume.name) in used else State.DETACHED,
            ready=True,
            details={"size": volume.size},
        )
        for volume in observed.volumes
    ]
