"""`banger vm …`: what is done to single VMs beside the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reconciler.api.service import ApplyOptions, TrashEntry, VmVerb
from reconciler.cli import failures, target, wire
from reconciler.cli.commands import seeing
from reconciler.cli.converge import finish
from reconciler.cli.options import (
    Duration,
    Output,
    TrashName,
    VmName,
    file_option,
    option,
    output_option,
    quiet_option,
    vm_argument,
    wait_options,
    yes_option,
)
from reconciler.cli.render import document, listing, table
from reconciler.cli.reporter import reporting
from reconciler.cli.terminal import asks, put, say
from reconciler.lib.errors import BangerError, ErrorClass, UsageError
from reconciler.lib.units import human_size, rfc3339

_PAST = {
    VmVerb.START: "started",
    VmVerb.STOP: "stopped",
    VmVerb.RESTART: "restarted",
    VmVerb.KILL: "killed",
}


@click.group()
def vm() -> None:
    """Show, start, stop, restart, kill, restore, discard or adopt VMs, and list their ports and what they use.

    The next `banger apply` goes by the file again: `state: stopped` there is what lasts.
    """


def _verb(verb: VmVerb, text: str, *, waits: bool) -> None:
    """Adds a command that does one thing to each of the named VMs."""

    def command(
        vms: tuple[str, ...], file: Path | None, quiet: bool, wait: bool = True, timeout: float | None = None
    ) -> None:
        worst = 0
        options = ApplyOptions(wait=wait, timeout=timeout)
        with wire.service() as service, reporting(quiet=quiet) as reporter:
            for ref in [target.vm(service, name, file) for name in vms]:
                try:
                    service.vm(verb, ref, options, reporter)
                except BangerError as error:
                    # One failing VM delays no other.
                    if error.error_class is ErrorClass.CANCELLED:
                        raise
                    failures.show(error, what=f"banger: {verb} {ref}")
                    worst = worst or error.exit_code
                else:
                    reporter.note(f"{_PAST[verb]} {ref}")
        finish(worst)

    command.__doc__ = text
    decorated: Callable[..., Any] = quiet_option()(command)
    if waits:
        decorated = wait_options("the VM is ready")(decorated)
    decorated = file_option()(decorated)
    decorated = click.argument("vms", metavar="VM...", nargs=-1, required=True, type=VmName())(decorated)
    vm.add_command(click.command(verb.value)(decorated))


vm.add_command(seeing.show)
vm.add_command(seeing.stats)
_verb(VmVerb.START, "Start VMs that are stopped.", waits=True)
_verb(VmVerb.STOP, "Shut VMs down in order: asked first, then synced, then killed.", waits=False)
_verb(VmVerb.RESTART, "Shut VMs down in order and start them again.", waits=True)
_verb(VmVerb.KILL, "End VMs at once, as if the power went. Their disks stay.", waits=False)


@vm.command()
@click.argument("name", metavar="VM")
@file_option()
@option("--entry", metavar="ENTRY", help="Which trash entry. [default: the newest of that VM]")
@wait_options("the VM is ready")
@quiet_option()
def restore(*, name: str, file: Path | None, entry: str | None, wait: bool, timeout: float | None, quiet: bool) -> None:
    """Bring a VM back from the trash, with its data."""
    environment, _, bare = name.removeprefix("vm/").rpartition("/")
    with wire.service() as service:
        with reporting(quiet=quiet) as reporter:
            chosen = environment or target.environment(file)
            options = ApplyOptions(wait=wait, timeout=timeout)
            ref = service.restore(bare, chosen, entry, options, reporter)
        if not quiet:
            say(f"restored {ref}")


@vm.command()
@file_option()
@output_option()
@vm_argument()
def ports(*, file: Path | None, output: Output, vm: str) -> None:
    """List what listens in a VM, and what of it is published where.

    What listens is read in the guest, so the VM has to run and answer ssh; what is published is shown in any case.
    """
    from reconciler.cli import guestports  # noqa: PLC0415  # the other verbs need none of it

    with wire.service() as service:
        ref = target.vm(service, vm, file)
        status = next(found for found in service.vms(ref.environment) if found.name == ref.name)
        running = status.details.get("pid") is not None
        argv = service.ssh_argv(ref, guestports.COMMAND, False) if running else None
    listening = guestports.listening(argv) if argv is not None else ()
    if argv is None:
        say(f"{ref} does not run: what is published is all there is to show")
    found = guestports.together(listening, status)
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([port.to_json(ref) for port in found]), output))
        case Output.NAME:
            for port in found:
                put(f"{port.number}/{port.protocol}")
        case Output.TABLE if not found:
            say(f"nothing listens in {ref}, and nothing of it is published")
        case Output.TABLE:
            put(table(guestports.HEADER, [port.row(running=running) for port in found]))


@vm.command()
@file_option()
@vm_argument()
def adopt(*, file: Path | None, vm: str) -> None:
    """Print the block of a file that would declare a VM as it is.

    For a one-off VM that turned out to be worth keeping: `banger vm adopt NAME >> banger.yaml`, if `vms` is the last part
    of that file. It declares another VM of the same kind; the old one stays what it is.
    """
    from reconciler.cli import adoption  # noqa: PLC0415  # the other verbs need none of it

    with wire.service() as service:
        ref = target.vm(service, vm, file)
        status = next(found for found in service.vms(ref.environment) if found.name == ref.name)
    put(adoption.block(status))


@vm.command()
@output_option()
def trash(*, output: Output) -> None:
    """List the VMs in the trash, newest first."""
    with wire.service() as service:
        entries = service.trash()
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([_entry_json(entry) for entry in entries]), output))
        case Output.NAME:
            for entry in entries:
                put(entry.entry)
        case Output.TABLE if not entries:
            say("the trash is empty")
        case Output.TABLE:
            header = ["NAME", "ENVIRONMENT", "TRASHED", "SIZE", "ENTRY"]
            rows = [[e.name, e.environment, rfc3339(e.trashed_at), human_size(e.size), e.entry] for e in entries]
            put(table(header, rows))


@vm.command()
@option("--all", "everything", is_flag=True, help="All that is in the trash.")
@option("--older-than", type=Duration(), metavar="DURATION", help="Of these, only what has lain there so long.")
@yes_option()
@quiet_option()
@click.argument("entries", metavar="[ENTRY]...", nargs=-1, type=TrashName())
def discard(*, entries: tuple[str, ...], everything: bool, older_than: float | None, yes: bool, quiet: bool) -> None:
    """Delete VMs in the trash for good, with their volumes.

    ENTRY is what `banger vm trash` shows. Nothing brings back what was discarded; on a terminal you are asked first.
    """
    if everything == bool(entries):
        raise click.UsageError("Name entries, or give --all." if not entries else "--all leaves no entry to name.")
    with wire.service() as service:
        there = {entry.entry: entry for entry in service.trash()}
        if unknown := [name for name in entries if name not in there]:
            raise UsageError(f"there is no entry {unknown[0]} in the trash", hint="banger vm trash")
        chosen = [there[name] for name in dict.fromkeys(entries or there)]
        if older_than is not None:
            end = time.time() - older_than
            chosen = [entry for entry in chosen if entry.trashed_at <= end]
        if not chosen:
            if not quiet:
                say("nothing to discard")
            return
        if not yes and asks():
            for entry in chosen:
                say(
                    f"vm {entry.environment}/{entry.name}, trashed {rfc3339(entry.trashed_at)}, {human_size(entry.size)}"
                )
            if not click.confirm("\nDelete this for good?", default=False, err=True):
                say("nothing was done")
                finish(1)
                return
        for entry in chosen:
            freed = service.discard(entry.entry)
            if not quiet:
                say(f"discarded {entry.entry}, {human_size(freed)}")


def _entry_json(entry: TrashEntry) -> dict[str, Any]:
    return {
        "kind": "trash",
        "name": entry.name,
        "environment": entry.environment,
        "entry": entry.entry,
        "trashedAt": rfc3339(entry.trashed_at),
        "size": entry.size,
    }
