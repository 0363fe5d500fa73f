"""A VM as the block of a file that would declare it."""

from __future__ import annotations

from typing import Any

from reconciler.cli import yamlout
from reconciler.lib.units import format_duration, format_size
from reconciler.model.status import ObjectStatus


def block(status: ObjectStatus) -> str:
    """What stands below `vms:`, indented as it is there. The image is named only: it has to be in the file too."""
    details = status.details
    fields: dict[str, Any] = {
        "image": details["image"],
        "cpus": details["cpus"],
        "memory": format_size(details["memory"]),
        "disk": format_size(details["disk"]),
        "network": details["network"],
    }
    if details.get("volumes"):
        fields["volumes"] = {
            v["name"]: {"size": format_size(v["size"]), "mount": v["mount"]} for v in details["volumes"]
        }
    if details.get("ports"):
        fields["ports"] = [_port(port) for port in details["ports"]]
    if details.get("ttl"):
        fields["ttl"] = format_duration(details["ttl"])
    if workspace := details.get("workspace"):
        fields["workspace"] = {key: workspace[key] for key in ("host", "guest")}
        if workspace["untracked"]:
            fields["workspace"]["untracked"] = True
    return "".join(f"  {line}\n" for line in yamlout.dump({status.name: fields}).splitlines())


def _port(port: dict[str, Any]) -> str:
    address = port["hostAddress"]
    host = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    suffix = "" if port["protocol"] == "tcp" else f"/{port['protocol']}"
    return f"{host}{port['hostPort']}:{port['guestPort']}{suffix}"
