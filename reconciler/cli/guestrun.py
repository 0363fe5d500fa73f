"""Runs a command in a guest over ssh, as if it ran here: streams, signals, exit code. Light to import."""

from __future__ import annotations

import os
import sys

from reconciler.lib import foreground
from reconciler.model.guestline import run_line, signal_line

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SSH_FAILED = 255
"""ssh's own exit code (ssh(1), EXIT STATUS)."""
TIMED_OUT = 124
"""As of timeout(1)."""


def over_ssh(
    entry: Sequence[str],
    command: Sequence[str],
    *,
    tty: bool = False,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> int:
    """Runs `command` and returns its exit code.

    Parameters
    ----------
    entry: the path of ssh, and its arguments from its own name up to the command.
    timeout: seconds, after which it gets SIGTERM, and SIGKILL ten seconds later; the code is then 124.
    """
    program, name, *options = entry
    mark = os.urandom(8).hex()

    def pass_on(number: int) -> None:
        foreground.detached(program, [name, "-T", *options, signal_line(mark, number)])

    line = run_line(command, mark, cwd=cwd, env=env)
    sys.stdout.flush()
    sys.stderr.flush()
    code, received = foreground.run(
        program, [name, "-tt" if tty else "-T", *options, line], on_signal=pass_on, timeout=timeout
    )
    if received is None:
        return code
    if received == foreground.TIMED_OUT:
        return TIMED_OUT
    # The guest's shell may have been hit as well, or the connection may have gone: then only the signal is known.
    return 128 + received if code == SSH_FAILED else code
