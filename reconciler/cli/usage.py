"""What VMs use, as a table and as JSON: measured twice, since a share of a CPU is one of a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.api.usage_forms import usage_to
from reconciler.cli.render import table
from reconciler.lib.units import human_duration, human_size
from reconciler.model.usage import VmUsage

Key = tuple[str, str]
"""Environment and name."""

HEADER = ("NAME", "ENVIRONMENT", "CPU", "CPUS", "RESIDENT", "MEMORY", "ALLOCATED", "DISK", "RECEIVED", "SENT", "UPTIME")


class Meter:
    """Remembers the last measurement, to which the next one is compared."""

    def __init__(self) -> None:
        self._before: Mapping[Key, VmUsage] = {}

    def shares(self, found: Sequence[VmUsage]) -> dict[Key, float | None]:
        """Of one CPU of the host, in percent, since the measurement before; None for what then did not run."""
        now = {(usage.environment, usage.name): usage for usage in found}
        shares = {key: usage.cpu_percent(self._before.get(key)) for key, usage in now.items()}
        self._before = now
        return shares


def usage_table(found: Sequence[VmUsage], shares: Mapping[Key, float | None]) -> str:
    """One line for each VM."""
    return table(HEADER, [usage_row(usage, shares.get((usage.environment, usage.name))) for usage in found])


def usage_row(usage: VmUsage, share: float | None) -> list[str]:
    """One line under HEADER."""
    now = usage.now
    return [
        usage.name,
        usage.environment,
        "-" if share is None else f"{share:.1f}%",
        str(usage.cpus),
        human_size(now.resident) if now else "-",
        human_size(usage.memory),
        human_size(usage.allocated),
        human_size(usage.size),
        _counted(now.received if now else None),
        _counted(now.sent if now else None),
        human_duration(now.uptime) if now else "-",
    ]


def usage_json(usage: VmUsage, share: float | None) -> dict[str, Any]:
    """As the API has it, with the share of a CPU."""
    form = usage_to(usage)
    return {**form, "cpu": {**form["cpu"], "percent": None if share is None else round(share, 1)}}


def _counted(count: int | None) -> str:
    return "-" if count is None else human_size(count)
