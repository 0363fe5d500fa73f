"""`banger top`: VMs and what they use on the whole screen, drawn anew until a key ends it. Imports rich."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum

from rich.console import Console
from rich.live import Live
from rich.text import Text

from reconciler.cli.render import message_of, state_of, table
from reconciler.cli.terminal import coloured
from reconciler.cli.usage import HEADER, Key, Meter, usage_row
from reconciler.lib.units import human_size
from reconciler.model.status import ObjectStatus
from reconciler.model.usage import VmUsage

_QUIT = frozenset("qQ\x03")


class Sort(StrEnum):
    """What comes first. The value is the key that is pressed for it."""

    CPU = "c"
    MEMORY = "m"
    DISK = "d"
    NAME = "n"


def run(vms: Callable[[], Sequence[ObjectStatus]], usage: Callable[[], Sequence[VmUsage]], interval: float) -> None:
    """Until `q`, Ctrl-C or the end of the terminal; the screen and the terminal's mode are then what they were."""
    meter, order = Meter(), Sort.CPU
    meter.shares(usage())
    console = Console(no_color=not coloured(sys.stdout), highlight=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            found = usage()
            states, shares = vms(), meter.shares(found)
            end = time.monotonic() + interval
            while (left := end - time.monotonic()) > 0:
                live.update(Text.from_ansi(screen(found, shares, states, order), no_wrap=True), refresh=True)
                key = pressed(left)
                if key in _QUIT:
                    return
                if key in set(Sort):
                    order = Sort(key)


def screen(
    found: Sequence[VmUsage], shares: Mapping[Key, float | None], states: Sequence[ObjectStatus], order: Sort
) -> str:
    """What is shown. VMs that are known by one of the two looks only are shown with what is known."""
    by_name = {(item.environment, item.name): item for item in states}
    rows = []
    for usage in sorted(found, key=lambda usage: _rank(usage, shares, order)):
        key = usage.environment, usage.name
        item = by_name.get(key)
        row = usage_row(usage, shares.get(key))
        rows.append([*row[:2], state_of(item) if item else "", *row[2:], message_of(item) if item else ""])
    running = [usage for usage in found if usage.now is not None]
    resident = sum(usage.now.resident for usage in running if usage.now is not None)
    taken = sum(share for share in shares.values() if share is not None)
    head = (
        f"{len(found)} VMs, {len(running)} running   CPU {taken:.0f}% of {100 * (os.cpu_count() or 1)}%   "
        f"memory {human_size(resident)}   disk {human_size(sum(usage.allocated for usage in found))}"
    )
    foot = f"sorted by {order.name.lower()}   c m d n: sort by CPU, memory, disk, name   q: quit"
    body = table((*HEADER[:2], "STATE", *HEADER[2:], "MESSAGE"), rows) if rows else "no VMs"
    return f"{head}\n{foot}\n\n{body}"


def _rank(usage: VmUsage, shares: Mapping[Key, float | None], order: Sort) -> tuple[float, str, str]:
    match order:
        case Sort.CPU:
            first = shares.get((usage.environment, usage.name)) or 0.0
        case Sort.MEMORY:
            first = float(usage.now.resident) if usage.now else 0.0
        case Sort.DISK:
            first = float(usage.allocated)
        case Sort.NAME:
            first = 0.0
    return -first, usage.environment, usage.name


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Single keys of the keyboard: a function that waits at most so many seconds for one, and else returns none."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def pressed(seconds: float) -> str:
        if not select.select([keyboard], [], [], seconds)[0]:
            return ""
        # The end of the terminal reads as nothing, for ever.
        return os.read(keyboard, 1).decode("ascii", "replace") or "q"

    try:
        tty.setcbreak(keyboard, termios.TCSANOW)
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
