"""`banger console`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from reconciler.cli import attaching, target, wire
from reconciler.cli.attaching import End
from reconciler.cli.options import file_option, option, vm_argument
from reconciler.cli.terminal import say
from reconciler.lib.errors import UsageError


class Key(click.ParamType[str]):
    """`ctrl-]`."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            attaching.key(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)
        return str(value)


@click.command()
@file_option()
@option(
    "--detach-key",
    type=Key(),
    default="ctrl-]",
    show_default=True,
    metavar="KEY",
    help="The key that ends it here only.",
)
@vm_argument()
def console(*, file: Path | None, detach_key: str, vm: str) -> None:
    """Attach this terminal to the serial console of a VM.

    Everything you type goes to the guest, Ctrl-C too; Ctrl-] detaches, and the guest goes on. What was said before is in
    `banger logs`; Enter brings a prompt back where there is one. A login there wants a password: `banger exec -t VM -- passwd`
    sets one.

    One can be attached at a time. Should the VM have to be stopped and not react, banger itself needs the line, to have its
    disks written back: then you are detached.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "banger console needs a terminal",
            hint=f"`banger logs -f {vm}` shows what the console says, and `banger exec {vm} -- COMMAND` runs a command",
        )
    with wire.service() as service:
        ref = target.vm(service, vm, file)
        way = service.way_in(ref, None)
    ended = None
    try:
        with wire.attach(way, ref) as line:
            say(f"attached to {ref}: {detach_key} detaches, Enter shows a prompt")
            try:
                ended = attaching.attach(line, attaching.key(detach_key))
            except KeyboardInterrupt:
                ended = End.DETACHED
                raise
    finally:
        # The line is free by now, however long this terminal takes.
        if ended is not None:
            say(f"{ref} has ended" if ended is End.CLOSED else f"detached from {ref}")
