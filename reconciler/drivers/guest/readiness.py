"""Whether a running VM answers the way its file says that a ready one does. Read-only."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.lib.paths import Paths, VmPaths
from reconciler.model.inside import AS_STARTED
from reconciler.model.observed import ObservedVm
from reconciler.model.vm import NO_NETWORK, USER_NETWORK

# ruff: noqa: PLC0415  # sockets are loaded by who probes; `ps` need not


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """`reason` is a CamelCase word as in conditions; `message` says what is missing, empty when ready."""

    ready: bool
    reason: str
    message: str = ""
    failed: bool = False
    """It will not become ready by waiting."""


def endpoint(vm: ObservedVm, guest_port: int) -> tuple[str, int] | None:
    """Where a port of the guest is reached from this host, or None if it cannot be."""
    if vm.network == USER_NETWORK:
        port = vm.forwards.get(str(guest_port))
        return ("127.0.0.1", port) if port else None
    return (str(vm.lease), guest_port) if vm.bridged and vm.lease else None


def look(vm: ObservedVm, environment: str, paths: Paths, timeout: float) -> Readiness:
    """Probes one VM for at most `timeout` seconds a probe."""
    from reconciler.drivers.guest import probe

    if not vm.running:
        message = probe.console_failure(paths.vm(environment, vm.name).console_log)
        if message and vm.started_at is not None:
            return Readiness(ready=False, reason="GuestFailed", message=f"the guest stopped: {message}", failed=True)
        return Readiness(ready=False, reason="NotRunning", message="it is not running", failed=True)
    wanted = vm.spec.ready
    if vm.network != NO_NETWORK and vm.spec.provision and "provision" not in vm.booted and not _missing(vm):
        return Readiness(ready=False, reason="NotProvisioned", message="its provisioning is not done")
    if vm.network != NO_NETWORK and (missing := _missing(vm)):
        return Readiness(ready=False, reason="NotConfigured", message=f"its {missing} are yet to be brought in")
    place = paths.vm(environment, vm.name)
    # A VM that an older banger started has no channel, and was ready without.
    if wanted.agent and place.agent_in.exists() and not _agent_answers(place, timeout):
        return Readiness(ready=False, reason="NoAgent", message="its agent does not answer")
    if wanted.ssh:
        there = endpoint(vm, 22)
        if there is None or not probe.ssh_banner(*there, timeout):
            return Readiness(ready=False, reason="NoSsh", message="its ssh server does not answer")
    if wanted.port is not None:
        there = endpoint(vm, wanted.port)
        forwarded = vm.spec.network == USER_NETWORK
        witness = vm.forwards.get("22") if forwarded else None
        if there is None or not probe.port_open(*there, timeout, forwarded, witness):
            return Readiness(ready=False, reason="PortClosed", message=f"nothing listens at its port {wanted.port}")
    return Readiness(ready=True, reason="Ready")


def _agent_answers(place: VmPaths, timeout: float) -> bool:
    from reconciler.drivers.guest.agent import Agent

    return Agent(place).ping(timeout)


def _missing(vm: ObservedVm) -> str:
    """What the guest has not been seen to have in its present boot."""
    if vm.spec.guest_files and vm.booted.get("files", AS_STARTED) == AS_STARTED:
        return "files"
    return "secrets" if vm.spec.secrets and "secrets" not in vm.booted else ""
