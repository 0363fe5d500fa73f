"""Lets the addresses of an answer through before the answer is told: egress rules by name.

The helper works on one request at a time, so one worker asks it; the server's thread never waits for it, and a bounded
number of answers does. What cannot be let through is not told either: the guest would only run into a wall.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.zone import Address

LEAST_SECONDS, MOST_SECONDS = 60, 86400
MOST = 64
"""Answers that wait for the helper at once."""

AT_ONCE = 64
"""Addresses in one request to the helper, which takes no more."""

MARGIN_SECONDS = 60
"""How much longer an address is let through than a guest may remember it: it may begin a connection at the end."""

_JOIN_SECONDS = 5.0

Allow = Callable[[str, tuple[Address, ...], int], object]
"""Entry of `egress`, addresses, seconds. Raises if the helper refuses, or is not there."""


@dataclass(frozen=True, slots=True)
class _Job:
    allow: Allow
    entries: tuple[str, ...]
    addresses: tuple[Address, ...]
    seconds: int
    done: Callable[[bool], None]


def lifetime(ttl: int) -> tuple[int, int]:
    """How many seconds addresses are let through whose longest TTL that is, and the TTL that the guest may see."""
    seconds = min(MOST_SECONDS, max(LEAST_SECONDS, ttl + MARGIN_SECONDS))
    return seconds, min(ttl, seconds - MARGIN_SECONDS)


class Granter:
    """Its thread begins with the first job.

    Parameters
    ----------
    tell: runs what it is given in the thread that asked, soon.
    """

    def __init__(self, tell: Callable[[Callable[[], None]], object], reports: Reports) -> None:
        self._tell = tell
        self._reports = reports
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MOST)
        self._thread: threading.Thread | None = None
        self._ended = False

    def ask(
        self,
        allow: Allow,
        entries: tuple[str, ...],
        addresses: tuple[Address, ...],
        seconds: int,
        done: Callable[[bool], None],
    ) -> None:
        """Calls `done` once, in the thread of `tell`: whether all of it is let through. For one thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="dns-egress", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait(_Job(allow, entries, addresses, seconds, done))
        except queue.Full:
            self._reports.report("egress", "too many answers wait for the root helper; some are not given")
            done(False)

    def stop(self) -> None:
        """Waits for what is being done, for a while; what waits is dropped."""
        self._ended = True
        if self._thread is None:
            return
        try:
            self._jobs.put_nowait(None)
        except queue.Full:
            pass  # it looks at `_ended` with each job
        self._thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._ended:
            self._answer(job, self._allowed(job))

    def _answer(self, job: _Job, allowed: bool) -> None:
        self._tell(lambda: job.done(allowed))

    def _allowed(self, job: _Job) -> bool:
        try:
            for entry, start in itertools.product(job.entries, range(0, len(job.addresses), AT_ONCE)):
                job.allow(entry, job.addresses[start : start + AT_ONCE], job.seconds)
        except Exception as problem:  # whatever it is, the addresses are not let through
            self._reports.report("egress", f"addresses of {', '.join(job.entries)} are not let through: {problem}")
            return False
        return True
