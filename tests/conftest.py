"""What every test may rely on, however the run was started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A job in the background may come with signals ignored, and so would every child that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
