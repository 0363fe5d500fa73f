"""When a guest has finished booting, told by what its VMM asks of the host's processors. Read-only.

A booting guest asks for all it can get, an idle one for next to nothing. What counts is the demand: time on a
processor plus time spent waiting for one, so that a crowded host does not make a guest look idle
(/proc/<pid>/task/<tid>/schedstat; kernel: Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.drivers.vmm.probe import PROC, Vmm, alive
from reconciler.lib import cancel
from reconciler.lib.clock import Clock

_SAMPLE_SECONDS = 0.5
_QUIET_SAMPLES = 3
_QUIET_SHARE = 0.5
"""Processors that a guest may ask for and still count as quiet."""

Demand = Callable[[Vmm], float | None]


def demand(vmm: Vmm, *, proc: Path = PROC) -> float | None:
    """Seconds that the VMM's threads have run or waited to run since they began; None if it is gone."""
    total = 0
    try:
        for task in (proc / str(vmm.pid) / "task").iterdir():
            try:
                ran, waited, _ = (task / "schedstat").read_text().split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that ended
            total += int(ran) + int(waited)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return total / 1e9 if alive(vmm, proc=proc) else None


def wait_until_settled(vmm: Vmm, clock: Clock, limit: float, demand: Demand = demand) -> None:
    """Returns once the guest is quiet, or gone, or `limit` seconds are over, or the process is told to end."""
    began = before_at = clock.monotonic()
    before = demand(vmm)
    quiet = 0
    while before is not None and quiet < _QUIET_SAMPLES and not cancel.cancelled():
        clock.sleep(_SAMPLE_SECONDS)
        now, now_at = demand(vmm), clock.monotonic()
        if now is None or now_at - began >= limit:
            return
        # Threads that end take their time along: a total that shrank is as good as quiet.
        share = (now - before) / max(now_at - before_at, 1e-6)
        quiet = quiet + 1 if share < _QUIET_SHARE else 0
        before, before_at = now, now_at
