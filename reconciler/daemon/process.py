"""The controller as a process: its log, and the signals that end it."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from reconciler.daemon.controller import Controller
from reconciler.daemon.engine import Engine
from reconciler.lib import cancel
from reconciler.lib.clock import SystemClock
from reconciler.lib.log import Log, format_of
from reconciler.lib.paths import Paths

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_controller(paths: Paths, sources: Sequence[Path], log_format: str) -> None:
    """Runs a controller until SIGTERM, SIGINT or SIGHUP. Raises BangerError if it cannot begin."""
    log = Log(sys.stderr, format_of(log_format, sys.stderr))
    # Each running VM takes a descriptor (pidfd), each client another one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    engine = Engine(paths, SystemClock())
    try:
        with _ended_by_signals():
            Controller(engine, sources, log).run()
        log.info("ended; VMs go on")
    finally:
        engine.close()
        cancel.reset()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """For a service an orderly end is no failure: the signal is a switch, and the exit code is 0."""

    def end(number: int, frame: FrameType | None) -> None:
        cancel.cancel()

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
