"""Connections that several ssh commands share (ssh_config(5), ControlMaster), and where they listen.

A guest's sockets lie in the folder that goes when its VM stops. Each user of the guest has one of its own: who joins
a connection is whoever made it, whatever name the joining command gives.
"""

from __future__ import annotations

import glob
from pathlib import Path

from reconciler.drivers.guest.ssh import quoted
from reconciler.lib.run import run, which

PERSIST_SECONDS = 300
"""How long a connection of banger's own outlives the last command that used it."""

_SUN_PATH = 108  # sizeof sockaddr_un.sun_path on Linux: unix(7)
_SUFFIX = 17  # a dot and 16 random characters, under which ssh makes the socket before it renames it (mux.c)
_USER = 16  # longer names are rare
_END_SECONDS = 5.0


def pattern(prefix: Path) -> str | None:
    """The ControlPath, as a value of an ssh option, of connections that the user's own commands share.

    prefix: a path, of which it is the beginning. None if the path is too long for a socket.
    """
    longest = len(f"{prefix}.65535.".encode()) + _USER + _SUFFIX
    # Before the closing quote: the port and the user are filled in by ssh.
    return f'{quoted(prefix)[:-1]}.%p.%r"' if longest < _SUN_PATH else None


def own(prefix: Path, user: str) -> Path | None:
    """Where the connection listens that banger's own commands share; None if the path is too long for a socket."""
    control = prefix.with_name(f"{prefix.name}.{user}")
    return control if len(str(control).encode()) + _SUFFIX < _SUN_PATH else None


def master(argv: list[str], control: Path) -> list[str]:
    """The command that makes the shared connection, and returns once it stands, from that which enters a guest."""
    # The first of two values counts, so ours come first.
    words = ["ControlMaster=yes", f"ControlPath={quoted(control)}", f"ControlPersist={PERSIST_SECONDS}"]
    return [argv[0], "-M", "-N", "-f", *(word for option in words for word in ("-o", option)), *argv[1:]]


def retire(prefix: Path) -> None:
    """Has nobody else join the connections below `prefix`, which go on for who uses them.

    What a session is given (variables, groups of its user) is given to a connection when that is made.
    """
    _ask(prefix, "stop")


def end(prefix: Path) -> None:
    """Ends the connections below `prefix`; sockets that nobody listens at go as well.

    Their guest is gone or about to go. Where it is not reached through its VMM, a connection would not notice for
    three times `ssh.ALIVE_INTERVAL`, and the next boot would be asked through it.
    """
    _ask(prefix, "exit")


def _ask(prefix: Path, request: str) -> None:
    program = which("ssh")
    for name in glob.glob(f"{glob.escape(str(prefix))}.*"):  # noqa: PTH207  # Path.glob would read the prefix as a pattern
        control = Path(name)
        if program is not None and control.is_socket():
            option = f"ControlPath={quoted(control)}"
            run([program, "-F", "none", "-o", option, "-O", request, "--", "vm"], timeout=_END_SECONDS, check=False)
        control.unlink(missing_ok=True)
