"""The ways into a running guest. Builds command lines; running them is the caller's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.api.service import Channel, SshOptions, VmRef, WayIn
from reconciler.daemon import views
from reconciler.daemon.engine import Engine
from reconciler.drivers.guest import shared, ssh
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.ids import host_alias
from reconciler.model.observed import ObservedVm
from reconciler.model.vm import NO_NETWORK
from reconciler.observe.guests import endpoint


def ssh_argv(
    engine: Engine, ref: VmRef, command: Sequence[str] | None, tty: bool | None, options: SshOptions
) -> list[str]:
    """A connection of its own."""
    return _argv(engine, ref, _running(engine, ref), options, command=command, tty=tty)


def way_in(engine: Engine, ref: VmRef, user: str | None) -> WayIn:
    """By ssh, over a connection that others share, where there is a network; else by the agent."""
    vm = _running(engine, ref)
    place = engine.paths.vm(ref.environment, ref.name)
    who = user or vm.spec.user
    if vm.network == NO_NETWORK:
        return WayIn(channel=Channel.AGENT, user=who, root=place.root, run=place.run)
    control = shared.own(place.ssh_shared, who)
    argv = _argv(engine, ref, vm, SshOptions(user=who), control=control)
    return WayIn(
        channel=Channel.SSH,
        user=who,
        root=place.root,
        run=place.run,
        argv=tuple(argv),
        master=tuple(shared.master(argv, control)) if control is not None else (),
        control=control,
        # What goes to a workspace by that short way would not be held against the repository here.
        entry=place.ssh_entry if who == vm.spec.user and vm.spec.workspace is None else None,
        workspace=vm.spec.workspace,
    )


def _running(engine: Engine, ref: VmRef) -> ObservedVm:
    vm = views.observe_vms(engine, ref.environment).get(ref.name)
    if vm is None or not vm.running:
        raise BangerError(f"vm {ref} is not running", hint=f"banger vm start {ref}")
    return vm


def _argv(engine: Engine, ref: VmRef, vm: ObservedVm, options: SshOptions, **more: Any) -> list[str]:
    there = endpoint(vm, 22)
    if there is None:
        raise BangerError(
            f"vm {ref} has no network, so ssh cannot reach it",
            hint=f"banger exec {ref} -- COMMAND needs none, and banger logs {ref} shows what its serial console said",
        )
    who = options.user or vm.spec.user
    if who.startswith("-"):
        raise UsageError(f"{who!r} is no user")
    place = engine.paths.vm(ref.environment, ref.name)
    return ssh.ssh_argv(
        host=there[0],
        port=there[1],
        key=engine.paths.client_key,
        known_hosts=place.known_hosts,
        alias=host_alias(vm.id),
        user=who,
        lend_agent=options.lend_agent,
        forwards=options.forwards,
        **more,
    )
