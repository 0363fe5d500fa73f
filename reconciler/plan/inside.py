"""What is to be done inside of guests: only of VMs that run, or will, and whose files on the host could be read."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.actions import ConfigureGuest, ProvisionVm, StartVm, StopVm
from reconciler.model.inside import env_fact, files_fact, provision_fact, secrets_fact
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.vm import NO_NETWORK, Vm
from reconciler.plan.vms import Decision

Why = tuple[str, str]
"""What is in the way, and what would release it."""


def unreadable(desired: Mapping[str, Vm], observed: ObservedState) -> dict[str, Why]:
    """VMs that are left as they are, because what they are to hold is not known (I4)."""
    found: dict[str, Why] = {}
    for name, vm in desired.items():
        missing: list[str] = []
        for file in vm.files:
            there = observed.sources.get(file.host) if file.host is not None else None
            missing += [f"vms.{name}.files: {there.reason}"] if isinstance(there, Unknown) else []
        for secret in vm.secrets:
            there = observed.secrets.get(secret)
            missing += [f"vms.{name}.secrets: {there.reason}"] if isinstance(there, Unknown) else []
        for step in vm.provision:
            there = observed.sources.get(step.script) if step.script is not None else None
            missing += [f"vms.{name}.provision: {there.reason}"] if isinstance(there, Unknown) else []
        if missing:
            found[name] = ("; ".join(dict.fromkeys(missing)), "mend that, or take the entry out of the file")
    return found


def configure(
    decisions: Mapping[str, Decision], desired: Mapping[str, Vm], observed: ObservedState
) -> list[ConfigureGuest | ProvisionVm]:
    """Steps for each guest that does not hold what it should, has not done its work, or was not seen to."""
    actions: list[ConfigureGuest | ProvisionVm] = []
    for name, decision in decisions.items():
        want, have = desired.get(name), observed.vms.get(name)
        starts = any(isinstance(action, StartVm) for action in decision.actions)
        stops = any(isinstance(action, StopVm) for action in decision.actions)
        if want is None or decision.held or not (starts or (have is not None and have.running and not stops)):
            continue
        reasons = _differences(want, None if starts else have, observed)
        timeout = want.ready.timeout
        if reasons:
            actions.append(ConfigureGuest(name=name, vm=want, timeout=timeout, reason="; ".join(reasons)))
        if work := _work(want, None if starts else have, observed):
            actions.append(ProvisionVm(name=name, vm=want, timeout=timeout, reason=work))
    return actions


def _differences(want: Vm, have: ObservedVm | None, observed: ObservedState) -> list[str]:
    """`have` is None for a guest that starts anew: what it was told with that is looked at once it can be entered."""
    network = want.network if have is None else have.network
    if network == NO_NETWORK:
        return []
    booted = have.booted if have is not None else {"env": env_fact(want.env)}  # the config disk has them
    return [
        f"{name}: {booted.get(name) or 'none'} → {wanted or 'none'}"
        for name, wanted in wanted_facts(want, observed).items()
        if booted.get(name, "") != wanted
    ]


def _work(want: Vm, have: ObservedVm | None, observed: ObservedState) -> str:
    """Why there is something to do. Work that has left the file was done, and nobody undoes it."""
    told = have.booted.get("provision", "") if have is not None else ""
    wanted = wanted_work(want, observed)
    if not wanted or wanted == told or (have is not None and have.network == NO_NETWORK):
        return ""
    return f"provision: {told or 'none'} → {wanted}"


def wanted_work(vm: Vm, observed: ObservedState) -> str:
    """The work in the guest of a VM as a fact."""
    return provision_fact(vm.provision, {path: is_ for path, is_ in observed.sources.items() if isinstance(is_, str)})


def wanted_facts(vm: Vm, observed: ObservedState) -> dict[str, str]:
    """What the guest of a VM is to have been told, all of which could be read."""
    sources = {path: there for path, there in observed.sources.items() if isinstance(there, str)}
    secrets = {secret: there for secret, there in observed.secrets.items() if isinstance(there, str)}
    return {
        "files": files_fact(vm.guest_files, sources),
        "env": env_fact(vm.env),
        "secrets": secrets_fact(vm.secrets, secrets),
    }
