"""Guests: whether a running VM answers the way its file says that a ready one does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from reconciler.drivers.guest.readiness import Readiness, endpoint, look
from reconciler.lib.paths import Paths
from reconciler.model.observed import ObservedVm

__all__ = ["AT_ONCE", "Readiness", "endpoint", "look", "look_at_all"]

AT_ONCE = max(4, 2 * (os.cpu_count() or 1))
"""Guests that are probed side by side. Each answer costs its guest a forked sshd: asked all at once, a crowd of
emulated guests would answer nobody in time."""


def look_at_all(
    vms: Sequence[ObservedVm],
    environment: str,
    paths: Paths,
    timeout: Callable[[ObservedVm], float],
    each: Callable[[ObservedVm, Readiness], None],
) -> None:
    """Probes many VMs, AT_ONCE of them side by side, each for at most `timeout(vm)` seconds a probe.

    `each` is called in the calling thread, in the order given.
    """
    # Bare threads: `concurrent.futures` takes longer to load than `ps` has for all of its VMs.
    waiting = iter(enumerate(vms))
    found: dict[int, Readiness | BaseException] = {}

    def work() -> None:
        for place, vm in waiting:
            try:
                found[place] = look(vm, environment, paths, timeout(vm))
            except BaseException as problem:  # raised again by who asked
                found[place] = problem

    workers = [threading.Thread(target=work, name="probe") for _ in range(min(AT_ONCE, len(vms)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for place, vm in enumerate(vms):
        result = found[place]
        if isinstance(result, BaseException):
            raise result
        each(vm, result)
