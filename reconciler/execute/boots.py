"""How many guests may boot at once.

A booting guest takes a whole processor. More of them than there are processors do not just share: their timer
interrupts go on in real time, and beyond a few guests for each processor they do little else, so that none comes
up at all. So the next one starts when one before it has become quiet.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.settle import wait_until_settled
from reconciler.lib import cancel
from reconciler.lib.clock import Clock
from reconciler.lib.errors import CancelledError
from reconciler.lib.progress import Progress

BOOT_SECONDS = 60.0
"""The longest that one guest holds its place: one that never becomes quiet delays the others no longer (I7)."""

_LOOK_SECONDS = 0.2

Settle = Callable[[Vmm, Clock, float], None]


class BootGate:
    """Places for booting guests, one for each processor that this process may use.

    shared: a folder by which the processes of one user share the places, as locks that end with their holders; None for
    places of one's own.
    """

    def __init__(
        self,
        clock: Clock,
        places: int | None = None,
        settle: Settle = wait_until_settled,
        shared: Path | None = None,
    ) -> None:
        self.places = places or len(os.sched_getaffinity(0))
        self._clock = clock
        self._settle = settle
        self._shared = shared
        self._free = threading.Semaphore(self.places)

    @contextmanager
    def boot(self, progress: Progress) -> Iterator[Callable[[Vmm], None]]:
        """Waits for a place. The block calls what it gets with the VMM that it started, which then keeps the place
        until its guest is quiet; a block that started none gives the place back at once."""
        if not self._free.acquire(blocking=False):
            progress.update(None, "waiting for other guests to boot")
            while not self._free.acquire(timeout=_LOOK_SECONDS):
                if cancel.cancelled():
                    raise CancelledError
        kept = False
        place: int | None = None

        def keep(vmm: Vmm) -> None:
            nonlocal kept
            kept = True
            threading.Thread(target=self._watch, args=(vmm, place), name=f"boot-{vmm.pid}", daemon=True).start()

        try:
            place = self._take_shared(progress)
            yield keep
        finally:
            if not kept:
                self._give_back(place)

    def _watch(self, vmm: Vmm, place: int | None) -> None:
        try:
            self._settle(vmm, self._clock, BOOT_SECONDS)
        finally:
            self._give_back(place)

    def _give_back(self, place: int | None) -> None:
        if place is not None:
            os.close(place)
        self._free.release()

    def _take_shared(self, progress: Progress) -> int | None:
        """A place that no other process has, as a locked descriptor; None where there is nothing to share."""
        if self._shared is None:
            return None
        told = False
        while True:
            for number in range(self.places):
                try:
                    self._shared.mkdir(parents=True, exist_ok=True, mode=0o700)
                    fd = os.open(self._shared / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except OSError:
                    return None  # a start is worth more than its turn
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                else:
                    return fd
            if not told:
                progress.update(None, "waiting for other guests to boot")
                told = True
            if cancel.cancelled():
                raise CancelledError
            self._clock.sleep(_LOOK_SECONDS)
