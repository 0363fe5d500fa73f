"""The connection to a guest that banger's own commands share: made by the first of them, joined by the others."""

from __future__ import annotations

import socket
from pathlib import Path

from reconciler.api.service import WayIn
from reconciler.cli.terminal import say
from reconciler.lib.atomic import exclusive, write_atomic
from reconciler.lib.run import require, run

_CONNECT_SECONDS = 60.0


def join(way: WayIn) -> tuple[list[str], int | None]:
    """The path of ssh and the arguments that run a command, which is one more; and the exit code of a failure."""
    program = require("ssh", "openssh-client")
    entry = [program, *way.argv]
    if way.control is None or _listens(way.control):
        return entry, None
    try:
        # One makes it, and those that come at the same time wait: else each would try, and all but one complain.
        with exclusive(way.run / "ssh.lock"):
            if not _listens(way.control):
                way.control.unlink(missing_ok=True)
                made = run([program, *way.master[1:]], timeout=_CONNECT_SECONDS, check=False)
                if made.returncode != 0:
                    say(made.stderr.decode(errors="replace").strip())
                    return entry, made.returncode
                _leave(way, entry)
    except OSError:
        pass  # a folder that cannot be written: the command has a connection of its own
    return entry, None


def _leave(way: WayIn, entry: list[str]) -> None:
    """Writes down for `cli.warm` how the connection is joined."""
    if way.entry is not None:
        write_atomic(way.entry, "\0".join([str(way.control), *entry]).encode(), mode=0o600)


def _listens(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(control))
        except OSError:
            return False
    return True
