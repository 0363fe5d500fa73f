"""What a VM may do when nobody is asked: rest after it ended, and not run for longer than it was given."""

from __future__ import annotations

from reconciler.lib.units import format_duration
from reconciler.model.observed import Ended, ObservedVm
from reconciler.model.vm import RestartPolicy, Vm


def rests(spec: Vm, have: ObservedVm) -> str | None:
    """Why a VM that does not run is not started again, as what is said after "it"; None if it is."""
    if have.halted is not None:
        return f"is to stay stopped ({have.halted})"
    match spec.restart, have.ended:
        case _, None | Ended.REBOOT:
            # Its guest asked for the restart, which only we can complete.
            return None
        case RestartPolicy.NEVER, _:
            return "has ended, and its `restart` is never"
        case RestartPolicy.ON_FAILURE, Ended.POWEROFF:
            return "has switched itself off, and its `restart` is on-failure"
        case _:
            return None


def overdue(spec: Vm, have: ObservedVm) -> str | None:
    """Why a VM that runs is to be stopped; None if it may go on."""
    if have.halted is not None:
        return have.halted  # whoever stopped it was cut off before it was done
    if spec.ttl is not None and have.uptime is not None and have.uptime >= spec.ttl:
        return f"its ttl of {format_duration(spec.ttl)} is over"
    return None
