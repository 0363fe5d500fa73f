"""The command line with which banger enters a guest. Builds it only: running it is the caller's business.

The user's own ssh configuration has no say, so that a connection means the same on every machine: the one key, the
one pinned host key, no agent, no questions (ssh_config(5)).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from reconciler.lib.errors import BangerError

CONNECT_TIMEOUT = 10
"""Seconds for the connection, and for the guest's greeting."""
ALIVE_INTERVAL = 15
"""Seconds of silence before the guest is asked whether it is still there; three unanswered questions end it."""


def ssh_argv(
    *,
    host: str,
    port: int,
    key: Path,
    known_hosts: Path,
    alias: str,
    user: str = "root",
    command: Sequence[str] | None = None,
    tty: bool | None = None,
    control: Path | None = None,
    lend_agent: bool = False,
    forwards: Sequence[str] = (),
    extra_options: Sequence[str] = (),
) -> list[str]:
    """The argument list of one ssh connection.

    Parameters
    ----------
    host, port: where to connect: the guest itself, or a forwarded port of the host.
    key: the private client key. known_hosts: the file with the guest's key under `alias`.
    command: program and arguments, which arrive in the guest exactly as given; None or empty for a login shell.
    tty: True forces a terminal, False forbids one, None leaves it to ssh.
    control: where a shared connection listens, if there is one: it is joined, and never made.
    lend_agent: whether programs in the guest may use the caller's ssh agent; logging in never does.
    forwards: `-L`, `-R` and `-D` with their values, word by word.
    extra_options: more `-o` settings, as `Name=value`. ssh takes the first of two equal names, which is ours.

    Raises BangerError for a path that ssh's configuration cannot express.
    """
    options = [
        f"IdentityFile={quoted(key)}",
        "IdentitiesOnly=yes",
        *(["ForwardAgent=yes"] if lend_agent else ["IdentityAgent=none"]),
        "PreferredAuthentications=publickey",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={quoted(known_hosts)}",
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={alias}",
        "UpdateHostKeys=no",
        "VerifyHostKeyDNS=no",
        "CheckHostIP=no",
        f"ControlPath={'none' if control is None else quoted(control)}",
        f"ConnectTimeout={CONNECT_TIMEOUT}",
        f"ServerAliveInterval={ALIVE_INTERVAL}",
        "ServerAliveCountMax=3",
        "LogLevel=ERROR",
        # A port that was asked for and cannot be had is a failure, not a warning that scrolls away.
        *(["ExitOnForwardFailure=yes"] if forwards else []),
        *extra_options,
    ]
    argv = ["ssh", "-F", "none", "-p", str(port), "-l", user]
    if tty is not None:
        argv.append("-tt" if tty else "-T")
    for option in options:
        argv += ["-o", option]
    argv += [*forwards, "--", host]
    if command:
        # The server hands one string to the user's shell (RFC 4254 6.5): quoted here, it is split there as it was.
        argv.append(shlex.join(command))
    return argv


def quoted(path: Path) -> str:
    """A path as a value of an ssh option: in quotes, and safe from the expansion of %-tokens.

    Raises BangerError for a path that ssh's configuration cannot express.
    """
    text = str(path.absolute())
    if "${" in text or any(ord(character) < 0x20 for character in text):
        raise BangerError(f"ssh cannot use the path {text!r}", hint="use a folder without ${ and control characters")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
