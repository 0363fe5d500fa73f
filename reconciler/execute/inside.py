"""What is done inside of a guest that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from reconciler.drivers.guest import files, probe, secrets, settings, shared, sources
from reconciler.drivers.guest.readiness import endpoint
from reconciler.drivers.guest.remote import Remote, SshRemote
from reconciler.drivers.vmm import probe as vmms
from reconciler.execute.readiness import observed
from reconciler.execute.tools import Tools
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.lib.units import format_duration
from reconciler.model.actions import ConfigureGuest
from reconciler.model.ids import host_alias
from reconciler.model.inside import env_fact, secrets_fact
from reconciler.model.observed import ObservedVm

_PAUSE = 0.1
_BANNER_SECONDS = 5.0


def configure_guest(action: ConfigureGuest, tools: Tools, progress: Progress) -> None:
    """Writes what the file asks for, then records that it is there. A guest that has ended is told at its next start."""
    guest = enter(action.name, action.timeout, tools, progress)
    if guest is None:
        return
    vm, told = action.vm, _told(action.name, tools)
    key = secrets.ensure_key(tools.paths.secrets_key)
    # All values before anything is done: one that is missing changes nothing.
    values = [(secret, secrets.read(secret)) for secret in vm.secrets]
    hashes = {secret: secrets.hashed(value, key) for secret, value in values}
    facts = {"env": env_fact(vm.env), "secrets": secrets_fact(vm.secrets, hashes)}
    if any(told.get(name, "") != fact for name, fact in facts.items()):
        progress.update(None, f"bringing {len(vm.env)} variables and {len(vm.secrets)} secrets")
        settings.deliver(guest, vm.env, values)
        shared.retire(tools.paths.vm(tools.environment, action.name).ssh_shared)
        note(action.name, facts, tools)
    gathered = sources.gather(vm.guest_files)
    if told.get("files", "") != gathered.fact:
        progress.update(None, f"writing {len(gathered.entries)} files and folders")
        for line in files.write(guest, gathered.entries):
            progress.update(None, f"kept {line}")
        note(action.name, {"files": gathered.fact}, tools)


def _told(name: str, tools: Tools) -> Mapping[str, str]:
    row = tools.inventory.vm(tools.environment, name)
    return row.booted if row is not None else {}


def note(name: str, facts: dict[str, str], tools: Tools) -> None:
    """Records what a guest was told in its present boot; an empty fact is none."""
    row = tools.inventory.vm(tools.environment, name)
    if row is None:
        return
    booted = {key: value for key, value in row.booted.items() if key not in facts}
    booted |= {key: value for key, value in facts.items() if value}
    tools.inventory.put_vm(dataclasses.replace(row, booted=booted))


def enter(name: str, timeout: float, tools: Tools, progress: Progress) -> Remote | None:
    """The way into a guest, once its ssh server speaks; None if it does not run any more.

    Raises a retryable BangerError when `timeout` seconds are over.
    """
    began = tools.clock.monotonic()
    told = False
    while True:
        late = tools.clock.monotonic() - began >= timeout
        vm = _running(name, tools)
        if vm is None:
            return None
        there = endpoint(vm, 22)
        if there is None:
            raise BangerError(f"vm {name} has no network, so its guest cannot be entered")
        if probe.ssh_banner(*there, _BANNER_SECONDS):
            return SshRemote(
                host=there[0],
                port=there[1],
                key=tools.paths.client_key,
                known_hosts=tools.paths.vm(tools.environment, name).known_hosts,
                alias=host_alias(vm.id),
            )
        if late:
            raise BangerError(
                f"the guest of vm {name} cannot be entered after {format_duration(timeout)}",
                hint=f"banger logs {name} shows its console",
                error_class=ErrorClass.RETRYABLE,
            )
        if cancel.cancelled():
            raise CancelledError
        if not told:
            progress.update(None, "waiting for the guest")
            told = True
        tools.clock.sleep(_PAUSE)


def _running(name: str, tools: Tools) -> ObservedVm | None:
    row = tools.inventory.vm(tools.environment, name)
    if row is None or row.id not in vmms.find(tools.inventory.install):
        return None
    return observed(row, tools)
