"""What VMs use, as JSON and back: what `banger vm stats -o json` prints, but for the share of a CPU."""

from __future__ import annotations

from typing import Any

from reconciler.model.usage import DiskUsage, Running, VmUsage


def usage_to(usage: VmUsage) -> dict[str, Any]:
    now = usage.now
    return {
        "kind": "usage",
        "environment": usage.environment,
        "name": usage.name,
        "running": now is not None,
        "uptime": now and now.uptime,
        "cpu": {"cpus": usage.cpus, "seconds": now and now.cpu},
        "memory": {"size": usage.memory, "resident": now and now.resident},
        "network": {"received": now and now.received, "sent": now and now.sent},
        "disks": [{"name": disk.name, "allocated": disk.allocated, "size": disk.size} for disk in usage.disks],
    }


def usage_from(data: dict[str, Any]) -> VmUsage:
    """The inverse of `usage_to`."""
    now = Running(
        uptime=data["uptime"],
        cpu=data["cpu"]["seconds"],
        resident=data["memory"]["resident"],
        received=data["network"]["received"],
        sent=data["network"]["sent"],
    )
    return VmUsage(
        environment=data["environment"],
        name=data["name"],
        cpus=data["cpu"]["cpus"],
        memory=data["memory"]["size"],
        disks=tuple(DiskUsage(**disk) for disk in data["disks"]),
        now=now if data["running"] else None,
    )
