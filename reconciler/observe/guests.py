"""Guests: whether a running VM answers the way its file says that a ready one does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from reconciler.drivers.guest.readiness import Readiness, endpoint, look
from reconciler.lib.paths import Paths
from reconciler.model.observed import ObservedVm

__all__ = ["AT_ONCE", "Readiness", "endpoint", "look", "look_at_all"]

AT_ONCE = max(4, 2 * (os.cpu_count() or 1))
"""Guests that are probed side by side. Each answer costs its guest a forked sshd: asked all at once, a crowd of
emulated guests would answer nobody in time."""

# ruff: noqa: PLC0415  # threads are loaded by who probes; `ps` need not


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
    if not vms:
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(vms)), thread_name_prefix="probe") as pool:
        for vm, readiness in zip(vms, pool.map(lambda vm: look(vm, environment, paths, timeout(vm)), vms), strict=True):
            each(vm, readiness)
