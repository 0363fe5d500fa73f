"""Kernels: what the file declares and the cache lacks is fetched. What is cached needs nothing."""

from __future__ import annotations

from reconciler.model.actions import FetchKernel
from reconciler.model.artifacts import ImageKernel, Kernel
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.plan import Held


def plan_kernels(desired: DesiredState, observed: ObservedState) -> tuple[list[FetchKernel], list[Held]]:
    """One fetch per missing identity: two names of the same kernel are one artifact."""
    if isinstance(observed.kernels, Unknown):
        reason = f"the kernels in the cache cannot be read: {observed.kernels.reason}"
        return [], [
            Held(object=f"kernel/{name}", reason=reason, release="make the cache readable") for name in desired.kernels
        ]
    missing: dict[str, Kernel] = {}
    unresolved = desired.unresolved
    for kernel in desired.kernels.values():
        if isinstance(kernel.source, ImageKernel) and kernel.source.image in unresolved:
            continue  # which image that is comes first
        if kernel.id not in observed.kernels:
            missing.setdefault(kernel.id, kernel)
    return [
        FetchKernel(name=kernel.name, kernel=kernel, reason=f"kernels.{kernel.name} is not in the cache")
        for kernel in missing.values()
    ], []
