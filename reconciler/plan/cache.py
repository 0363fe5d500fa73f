"""What killed processes left: staging folders without a maker, VMMs without a VM."""

from __future__ import annotations

from reconciler.model.actions import KillStray, SweepStaging
from reconciler.model.observed import ObservedState


def plan_leftovers(observed: ObservedState) -> list[KillStray | SweepStaging]:
    """Everything here bears our stamp or lies in our own staging folders (I6)."""
    killed = [
        KillStray(name=stray.vm_id, pid=stray.pid, reason="its vm is in no inventory") for stray in observed.strays
    ]
    swept = [SweepStaging(name=path, reason="the process that made it is gone") for path in observed.corpses]
    return [*killed, *swept]
