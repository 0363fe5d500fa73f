"""Connections that several ssh commands share (ssh_config(5), ControlMaster), and where they listen.

A guest's sockets lie in the folder that goes when its VM stops. Each user of the guest has one of its own: who joins
a connection is whoever made it, whatever name the joining command gives.
"""

from __future__ import annotations

import glob
from pathlib import Path

from reconciler.drivers.guest.ssh import quoted
from reconciler.lib.run import run, which

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


def end(prefix: Path) -> None:
    """Ends the connections below `prefix`; sockets that nobody listens at go as well.

    Their guest is gone or about to go. Where it is not reached through its VMM, a connection would not notice for
    three times `ssh.ALIVE_INTERVAL`, and the next boot would be asked through it.
    """
    program = which("ssh")
    for name in glob.glob(f"{glob.escape(str(prefix))}.*"):  # noqa: PTH207  # Path.glob would read the prefix as a pattern
        control = Path(name)
        if program is not None:
            option = f"ControlPath={quoted(control)}"
            run([program, "-F", "none", "-o", option, "-O", "exit", "--", "vm"], timeout=_END_SECONDS, check=False)
        control.unlink(missing_ok=True)
