"""How long work tells what it is doing. Who shows it, and how, is the command line's business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One piece of long work, from the worker's side. Calls may come from any thread."""

    def update(self, fraction: float | None, message: str) -> None:
        """`fraction` from 0 to 1, or None while unknown; `message` names the present step in a few words."""


class Silent:
    """Progress that nobody watches."""

    def update(self, fraction: float | None, message: str) -> None:
        pass


class Share:
    """A part of a longer work, seen as a whole by who does it."""

    def __init__(self, whole: Progress, share: float, start: float = 0.0) -> None:
        self._whole = whole
        self._share = share
        self._start = start

    def update(self, fraction: float | None, message: str) -> None:
        self._whole.update(None if fraction is None else self._start + fraction * self._share, message)
