"""One child that has this process's terminal and streams, and whose end is this process's own.

Light to import, since `banger exec` waits for it: neither subprocess nor anything that it brings. The child stays in this
process group, so that it may read the terminal and Ctrl-Z stops both; but SIGINT and SIGQUIT, which a terminal sends to
the whole group, are kept from it: what becomes of them is decided here.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

TIMED_OUT = signal.SIGALRM
"""In place of a signal from outside: the time was up."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEPT_FROM_THE_CHILD = (signal.SIGINT, signal.SIGQUIT)
_PATIENCE = 3
"""So many SIGINTs end the child itself."""


def run(
    program: str,
    argv: Sequence[str],
    *,
    on_signal: Callable[[int], None],
    timeout: float | None = None,
    grace: float = 10.0,
) -> tuple[int, int | None]:
    """Runs a child to its end, and hands over the signals that are sent to this process.

    Parameters
    ----------
    on_signal: is told each signal at once, and does not block. Its own children may end at any time.
    timeout: seconds after which it is told SIGTERM, and SIGKILL `grace` seconds later.

    Returns the exit code (128+n for a child that signal n ended) and the last signal that was handed over, SIGALRM if
    that was because of `timeout`. Raises OSError if the child cannot be started. For the main thread.
    """
    last: int | None = None
    interrupts = 0
    child = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last, interrupts
        if number == signal.SIGALRM:
            late = last == signal.SIGALRM
            last = signal.SIGALRM
            on_signal(signal.SIGKILL if late else signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, 0.0 if late else grace)
            return
        interrupts += number == signal.SIGINT
        if last != signal.SIGALRM:
            last = number
        if interrupts >= _PATIENCE:
            os.kill(child, signal.SIGTERM)
        else:
            on_signal(number)

    previous: dict[int, Any] = {}
    handled = (*FORWARDED, *([signal.SIGALRM] if timeout is not None else []))
    # One that comes while there is a child, and no handler yet, would end this process alone.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        try:
            child = os.posix_spawn(program, list(argv), dict(os.environ), setsigmask=_KEPT_FROM_THE_CHILD)
            for number in handled:
                # What the parent chose to ignore stays ignored: nohup(1).
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, handle)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, max(timeout, 1e-6))
        _, status = os.waitpid(child, 0)
    finally:
        if timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for given, handler in previous.items():
            signal.signal(given, handler)
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code), last


def detached(program: str, argv: Sequence[str]) -> None:
    """Starts a child in a session of its own, without streams, and lets it be: this process is about to end anyway."""
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    os.posix_spawn(program, list(argv), dict(os.environ), setsid=True, file_actions=nothing)
