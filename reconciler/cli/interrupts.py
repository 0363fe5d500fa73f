"""Ctrl-C and SIGTERM: once for an orderly end, twice for an immediate one.

A signal ends the running children first (they are in sessions of their own and hear no Ctrl-C), then unwinds
the main thread as KeyboardInterrupt. Leaving at once is safe as well: the next run repairs whatever was cut.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_SECONDS = 0.5
"""Within this time a second SIGTERM is the first one: timeout(1) sends it to its child, and again to the whole group."""
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """While entered, the three signals are handled; `exit_code` is 128+n once signal n has come, else None."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        # Python delivers signals to the main thread only (signal module); elsewhere somebody else is in charge.
        if threading.current_thread() is threading.main_thread():
            for number in _HANDLED:
                # What the parent chose to ignore stays ignored: nohup(1).
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        if self.exit_code is not None:
            from reconciler.lib.run import reset_cancel  # noqa: PLC0415

            reset_cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            if number == signal.SIGTERM and time.monotonic() - self._since < _ONE_SECONDS:
                return
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(self.exit_code)
        self.exit_code = 128 + number
        self._since = time.monotonic()
        # In a thread, because this one may hold the very lock that cancelling takes.
        canceller = threading.Thread(target=_cancel, daemon=True)
        canceller.start()
        raise KeyboardInterrupt


def _cancel() -> None:
    from reconciler.lib.run import cancel_all  # noqa: PLC0415

    cancel_all()
