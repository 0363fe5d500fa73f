"""`banger exec` for a VM without a network, in the process of the command line: its streams are the command's."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from reconciler.api.service import WayIn
from reconciler.drivers.guest import command as guest_command
from reconciler.drivers.guest.agent import Agent
from reconciler.lib.foreground import FORWARDED
from reconciler.lib.paths import VmPaths

TIMED_OUT = 124
_GRACE_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
"""Others may want something of the agent too, and a MiB at a time takes an emulated guest a while."""
_PATIENCE = 3


def run_command(
    way: WayIn, words: Sequence[str], *, cwd: str | None, env: Mapping[str, str], timeout: float | None
) -> int:
    """Runs a command and returns its exit code, 124 if it had to be ended after `timeout` seconds.

    For the main thread, whose signals are sent on meanwhile; the third SIGINT is KeyboardInterrupt.
    """
    pending: list[int] = []
    interrupts = 0
    end = None if timeout is None else time.monotonic() + timeout
    expired = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts >= _PATIENCE:
            raise KeyboardInterrupt
        pending.append(number)

    def orders() -> Sequence[int]:
        nonlocal end, expired
        if end is not None and time.monotonic() >= end:
            pending.append(signal.SIGKILL if expired else signal.SIGTERM)
            end = None if expired else time.monotonic() + _GRACE_SECONDS
            expired = True
        taken = pending[:]
        del pending[: len(taken)]
        return taken

    agent = Agent(VmPaths(way.root, way.run), _ANSWER_SECONDS)
    previous: dict[int, Any] = {}
    try:
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
        code = guest_command.run(agent, words, user=way.user, cwd=cwd, env=env, streams=(0, 1, 2), orders=orders)
    finally:
        for given, handler in previous.items():
            signal.signal(given, handler)
    return TIMED_OUT if expired else code
