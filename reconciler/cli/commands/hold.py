"""`banger approve`, `banger pause` and `banger resume`: what a person decides over the controller."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli import target, wire
from reconciler.cli.options import VmName, file_option
from reconciler.cli.terminal import say


@click.command()
@click.argument("plan", metavar="HASH")
def approve(*, plan: str) -> None:
    """Let removals go that the controller holds back.

    A file that would delete more of its VMs than `controller.maxDelete` is held, and `banger status` shows the HASH of
    what it would delete. The approval is for exactly these VMs and this content of the file.
    """
    with wire.service() as service:
        environment = service.approve(plan)
    say(f"approved {plan}: environment {environment} goes on")


@click.command()
@click.argument("vm", required=False, type=VmName())
@file_option()
def pause(*, vm: str | None, file: Path | None) -> None:
    """Have the controller leave a VM, or a whole environment, as it is.

    Nothing is stopped, started or repaired there until `banger resume`. What you do yourself still works.
    """
    _hold(vm, file, paused=True)


@click.command()
@click.argument("vm", required=False, type=VmName())
@file_option()
def resume(*, vm: str | None, file: Path | None) -> None:
    """Have the controller go on with what was paused, or was given up as contended.

    What waits for its next try is tried at once.
    """
    _hold(vm, file, paused=False)


def _hold(vm: str | None, file: Path | None, *, paused: bool) -> None:
    with wire.service() as service:
        if vm is not None:
            ref = target.vm(service, vm, file)
            environment, name, what = ref.environment, ref.name, f"vm {ref}"
        else:
            environment, name = target.existing_environment(service, None, file), None
            what = f"environment {environment}"
        changed = service.pause(environment, name) if paused else service.resume(environment, name)
    if paused:
        say(f"paused {what}" if changed else f"{what} is paused already")
    else:
        say(f"resumed {what}" if changed else f"{what} was not paused; it is looked at again now")
