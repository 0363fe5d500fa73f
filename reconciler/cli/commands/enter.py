"""`banger ssh` and `banger exec`: this process becomes ssh, so that signals, terminal and exit code are its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from reconciler.cli import target, wire
from reconciler.cli.options import file_option, option, vm_argument
from reconciler.lib.errors import BangerError
from reconciler.lib.run import require

# Whatever follows the VM's name is the guest's, dashes and all.
_PASSING = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@click.command(context_settings=_PASSING)
@file_option()
@option("--tty/--no-tty", "tty", default=None, help="Give the command a terminal. [default: none for a command]")
@vm_argument()
@click.argument("command", metavar="[[--] COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def ssh(*, file: Path | None, tty: bool | None, vm: str, command: tuple[str, ...]) -> None:
    """Open a shell in a VM, or run a command line there.

    The host key was made on this host and is verified on the first connection already.
    """
    words = _own(command)
    _become(vm, file, words or None, tty)


@click.command("exec", context_settings=_PASSING)
@file_option()
@option("--tty/--no-tty", "tty", default=None, help="Give the command a terminal. [default: if this one has one]")
@vm_argument()
@click.argument("command", metavar="[--] COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(*, file: Path | None, tty: bool | None, vm: str, command: tuple[str, ...]) -> None:
    """Run a command in a VM and pass its exit code.

    Every word arrives in the guest as it is: no shell there reads it again.
    """
    words = _own(command)
    if not words:
        raise click.UsageError("Missing argument 'COMMAND'.")
    if tty is None:
        tty = sys.stdin.isatty() and sys.stdout.isatty()
    _become(vm, file, words, tty)


def _own(command: tuple[str, ...]) -> list[str]:
    """The command without the `--` that set it off; a second one belongs to the command."""
    return list(command[1:] if command[:1] == ("--",) else command)


def _become(vm: str, file: Path | None, command: list[str] | None, tty: bool | None) -> NoReturn:
    with wire.service() as service:
        argv = service.ssh_argv(target.vm(service, vm, file), command, tty)
    program = require("ssh", "openssh-client")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, argv)  # noqa: S606  # no shell is wanted: the words are exact
    except OSError as problem:
        raise BangerError(f"cannot start {program}: {problem.strerror}") from problem
