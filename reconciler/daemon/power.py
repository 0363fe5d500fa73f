"""Plans of one VM that a person asks for beside the file: start, stop, restart, kill, restore."""

from __future__ import annotations

from reconciler.api.service import VmRef, VmVerb
from reconciler.daemon.engine import Engine
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.actions import (
    Action,
    ConfigureGuest,
    DeleteTap,
    EnsureBridge,
    EnsureRules,
    EnsureTap,
    ProvisionVm,
    RestoreVm,
    StartVm,
    StopVm,
)
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.plan import Plan
from reconciler.model.vm import NO_NETWORK
from reconciler.plan.order import order
from reconciler.plan.rules import recorded_rules
from reconciler.plan.tools import plan_tools

_REASON = "you asked for it"
_BY_HAND = "stopped by hand"


def plan_verb(verb: VmVerb, ref: VmRef, observed: ObservedState) -> Plan:
    """The steps for one verb; none if the VM is already so."""
    vm = observed.vms.get(ref.name)
    if vm is None:
        raise UsageError(f"there is no vm {ref}")
    if observed.processes is not None:
        # Started a second time, or taken for stopped while it runs (I4).
        raise BangerError(f"whether vm {ref} runs is unknown: {observed.processes.reason}")
    actions: list[Action] = []
    if vm.running and verb is not VmVerb.START:
        restart = verb is VmVerb.RESTART
        halt = None if restart else _BY_HAND
        actions.append(StopVm(name=vm.name, reason=_REASON, restart=restart, kill=verb is VmVerb.KILL, halt=halt))
    if verb is VmVerb.RESTART or (verb is VmVerb.START and not vm.running):
        actions += _start(vm, observed)
        actions += plan_tools(actions, observed)
    elif verb is not VmVerb.START and not isinstance(observed.taps, Unknown) and vm.name in observed.taps:
        actions.append(DeleteTap(name=vm.name, reason=_REASON))
    return Plan(environment=ref.environment, steps=order(actions, observed))


def plan_restore(name: str, environment: str | None, entry: str | None, engine: Engine) -> tuple[VmRef, Plan]:
    """The way back from the trash for the newest entry of that name, or for the one that is named."""
    from reconciler.drivers.cache.trash import entries  # noqa: PLC0415  # `ps` does without

    found = [
        (identity, manifest)
        for identity, manifest in entries(engine.paths)
        if manifest.name == name
        and manifest.vm is not None
        and environment in (None, manifest.environment)
        and entry in (None, identity)
    ]
    if not found:
        raise UsageError(f"there is no vm {name} in the trash", hint="banger vm trash lists what is there")
    environments = {manifest.environment for _, manifest in found}
    if len(environments) > 1:
        raise UsageError(
            f"vms named {name} of several environments are in the trash",
            hint="write " + " or ".join(f"{env}/{name}" for env in sorted(environments)),
        )
    identity, manifest = found[0]
    ref = VmRef(environment=manifest.environment, name=name)
    row = engine.inventory().vm(ref.environment, name)
    if row is not None and row.id != manifest.id:
        raise UsageError(
            f"a vm {ref} exists, so the one in the trash cannot come back under its name",
            hint="remove its block from the file and apply; then both are in the trash, and --entry chooses",
        )
    action = RestoreVm(name=name, entry=identity, reason=_REASON)
    return ref, Plan(environment=ref.environment, steps=order([action], engine.observe(ref.environment)))


def _start(vm: ObservedVm, observed: ObservedState) -> list[Action]:
    """With the settings that were applied last, not with those that a changed file may have by now."""
    network = observed.networks.get(vm.spec.network)
    actions: list[Action] = []
    if network is not None:
        actions.append(EnsureBridge(name=network.name, network=network, reason=_REASON))
        rules = recorded_rules(network, observed)
        actions.append(EnsureRules(name=network.name, network=network, rules=rules, reason=_REASON))
        actions.append(EnsureTap(name=vm.name, network=network.name, mtu=network.mtu, reason=_REASON))
    elif vm.spec.bridged:
        raise UsageError(f"network {vm.spec.network} of vm {vm.name} no longer exists", hint="apply a file that has it")
    actions.append(StartVm(name=vm.name, vm=vm.spec, network=network, address=vm.address, reason=_REASON))
    if vm.spec.network != NO_NETWORK and (vm.spec.guest_files or vm.spec.secrets):
        timeout = vm.spec.ready.timeout
        actions.append(ConfigureGuest(name=vm.name, vm=vm.spec, timeout=timeout, reason="its guest starts anew"))
    if vm.spec.network != NO_NETWORK and vm.spec.provision:
        timeout = vm.spec.ready.timeout
        actions.append(ProvisionVm(name=vm.name, vm=vm.spec, timeout=timeout, reason="its guest starts anew"))
    return actions
