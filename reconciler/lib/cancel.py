"""One switch for the whole process: the user wants it to end."""

from __future__ import annotations

import threading

_event = threading.Event()


def cancel() -> None:
    """Says it. Whoever works in steps, or sleeps, sees it soon."""
    _event.set()


def cancelled() -> bool:
    return _event.is_set()


def pause(seconds: float) -> None:
    """Sleeps, but no longer than until `cancel`."""
    _event.wait(seconds)


def reset() -> None:
    """Allows new work again: for a process that outlives one operation, and for tests."""
    _event.clear()
