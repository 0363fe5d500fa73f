"""`banger ssh` and `banger exec`: a shell or a command in a guest, with its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click

from reconciler.api.service import Channel, SshOptions
from reconciler.cli import guestrun, joining, target, wire
from reconciler.cli.options import Duration, Setting, file_option, option, vm_argument
from reconciler.cli.terminal import say
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.run import require

# Whatever follows the VM's name is the guest's, dashes and all.
_PASSING = {"allow_interspersed_args": False, "ignore_unknown_options": False}
_FORWARDS = ("-L", "-R", "-D")
# ruff: noqa: PLC0415  # what only VMs with a workspace need takes a while to load


@click.command(context_settings=_PASSING)
@file_option()
@option(
    "--tty/--no-tty", "-t/-T", "tty", default=None, help="Give the command a terminal. [default: none for a command]"
)
@option("--user", metavar="USER", help="Who to be in the guest. [default: the VM's `user`]")
@option("-A", "--agent", is_flag=True, help="Let programs in the guest use your ssh agent.")
@option("-L", "--local", multiple=True, metavar="SPEC", help="Lead a port of this host into the guest: see ssh(1), -L.")
@option("-R", "--remote", multiple=True, metavar="SPEC", help="Lead a port of the guest to this host: see ssh(1), -R.")
@option("-D", "--dynamic", multiple=True, metavar="SPEC", help="Be a SOCKS proxy into the guest: see ssh(1), -D.")
@vm_argument()
@click.argument("command", metavar="[[--] COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def ssh(
    *,
    file: Path | None,
    tty: bool | None,
    user: str | None,
    agent: bool,
    local: tuple[str, ...],
    remote: tuple[str, ...],
    dynamic: tuple[str, ...],
    vm: str,
    command: tuple[str, ...],
) -> None:
    """Open a shell in a VM, or run a command line there.

    The host key was made on this host and is verified on the first connection already. A forwarded port is had or the
    command fails; `-L 8080:localhost:80` alone keeps a shell open beside it.
    """
    pairs = zip(_FORWARDS, (local, remote, dynamic), strict=True)
    forwards = tuple(word for flag, specs in pairs for spec in specs for word in (flag, spec))
    options = SshOptions(user=user, lend_agent=agent, forwards=forwards)
    with wire.service() as service:
        argv = service.ssh_argv(target.vm(service, vm, file), _own(command) or None, tty, options)
    _become(argv)


@click.command("exec", context_settings=_PASSING)
@file_option()
@option(
    "--tty/--no-tty", "-t/-T", "tty", default=None, help="Give the command a terminal. [default: if this one has one]"
)
@option("-i", "--interactive", is_flag=True, help="Nothing: stdin is always passed. For who is used to -it.")
@option("--user", metavar="USER", help="Who to be in the guest. [default: the VM's `user`]")
@option("--cwd", metavar="DIR", help="Where to run it. [default: the user's home; / over the agent]")
@option(
    "--env", "settings", type=Setting(), multiple=True, metavar="NAME=VALUE", help="Set a variable; may be repeated."
)
@option(
    "--sync/--no-sync",
    default=None,
    help="Send what has changed in the VM's workspace first; or do not even look. [default: say so if something has]",
)
@option("--timeout", type=Duration(), metavar="DURATION", help="End the command after this time, with exit code 124.")
@option("-v", "--verbose", is_flag=True, help="Say what leads into the guest.")
@vm_argument()
@click.argument("command", metavar="[--] COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    *,
    file: Path | None,
    tty: bool | None,
    interactive: bool,
    user: str | None,
    cwd: str | None,
    settings: tuple[tuple[str, str], ...],
    sync: bool | None,
    timeout: float | None,
    verbose: bool,
    vm: str,
    command: tuple[str, ...],
) -> int:
    """Run a command in a VM and pass its exit code.

    Every word arrives in the guest as it is: no shell there reads it again. stdin, stdout and stderr are the command's;
    SIGINT, SIGTERM and SIGHUP are sent on to it, and the third Ctrl-C ends banger alone. A command that a signal ends
    gives 128 and its number.

    It goes over ssh where the VM has a network, by a connection that stays for the next command for five minutes; and
    over the VMM's own line to the guest's agent with `network: none`. There the command has no terminal, and gets its
    whole input before it begins.
    """
    words = _own(command)
    if not words:
        raise click.UsageError("Missing argument 'COMMAND'.")
    env = _environment(settings)
    with wire.service() as service:
        ref = target.vm(service, vm, file)
        way = service.way_in(ref, user)
        # Another user's command may see the copy, but it is the usual one's.
        owner = service.way_in(ref, None) if user and way.workspace and sync is not False else way
    if sync and way.workspace is None:
        raise UsageError(f"vm {ref} has no workspace", hint="leave --sync out")
    if verbose:
        say(f"{ref}: over {'ssh' if way.channel is Channel.SSH else 'the agent, without a network'}, as {way.user}")
    if way.channel is Channel.AGENT:
        if tty:
            raise UsageError(
                f"vm {ref} has no network, and its agent gives no terminal",
                hint="leave -t out: its input, output and exit code pass as they are",
            )
        return wire.run_by_agent(way, words, cwd=cwd, env=env, timeout=timeout)
    if tty is None:
        tty = sys.stdin.isatty() and sys.stdout.isatty()
    entry, failed = joining.join(way)
    if failed is not None:
        return failed
    if way.workspace is not None and sync is not False:
        from reconciler.cli import workspaces

        own, failed = (entry, None) if owner is way else joining.join(owner)
        if failed is not None:
            return failed
        workspaces.before(way, own, ref, sync=sync, verbose=verbose)
    return guestrun.over_ssh(entry, words, tty=tty, cwd=cwd, env=env, timeout=timeout)


def _environment(settings: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    for name, _ in settings:
        if not name.replace("_", "a").isalnum() or name[:1].isdigit() or not name.isascii():
            raise click.UsageError(f"{name!r} is no name of a variable")
    return dict(settings)


def _own(command: tuple[str, ...]) -> list[str]:
    """The command without the `--` that set it off; a second one belongs to the command."""
    return list(command[1:] if command[:1] == ("--",) else command)


def _become(argv: list[str]) -> NoReturn:
    """This process becomes ssh, so that signals, terminal and exit code are its own."""
    program = require("ssh", "openssh-client")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, argv)  # noqa: S606  # no shell is wanted: the words are exact
    except OSError as problem:
        raise BangerError(f"cannot start {program}: {problem.strerror}") from problem
