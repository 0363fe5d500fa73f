"""A way to run a program in a guest that runs, with what it reads and what it says.

What is sent stands on the program's standard input only, never on a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.drivers.guest.ssh import ssh_argv
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import Completed, run

_SSH_FAILED = 255
"""ssh(1): an error of ssh itself. A program that ends with it cannot be told from that."""


class Remote(Protocol):
    """How a guest is reached; as root."""

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout: float) -> Completed:
        """Runs a program to its end, whatever it ends with. `timeout` in seconds.

        Raises BangerError, retryable, if the guest cannot be reached or the program takes too long.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SshRemote:
    """The guest's ssh server, entered with banger's own key."""

    host: str
    port: int
    key: Path
    known_hosts: Path
    alias: str

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout: float) -> Completed:
        argv = ssh_argv(
            host=self.host,
            port=self.port,
            key=self.key,
            known_hosts=self.known_hosts,
            alias=self.alias,
            command=command,
            tty=False,
        )
        done = run(argv, input=input, timeout=timeout, check=False)
        if done.returncode == _SSH_FAILED:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise BangerError(
                f"the guest cannot be entered: {words[-1] if words else 'ssh failed'}",
                error_class=ErrorClass.RETRYABLE,
            )
        return done
