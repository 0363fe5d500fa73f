"""VMs as `banger ps` lists them. Light: it is what `ps` waits for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.cli.render import message_of, state_of, table
from reconciler.lib.units import human_duration, human_size
from reconciler.model.status import ObjectStatus

_HEADER = ("NAME", "ENVIRONMENT", "STATE", "ADDRESS", "IMAGE", "CPUS", "MEMORY", "UPTIME", "PORTS")
_MORE = ("NETWORK", "DISK", "AGE", "WORKSPACE", "PID")


def vm_table(items: Sequence[ObjectStatus], *, wide: bool = False, now: float | None = None) -> str:
    """One line for each VM. `now` in seconds since the epoch."""
    at = time.time() if now is None else now
    header = [*_HEADER, *(_MORE if wide else ()), "MESSAGE"]
    return table(header, [_row(item, at, wide=wide) for item in items])


def _row(item: ObjectStatus, now: float, *, wide: bool) -> list[str]:
    has = item.details
    started = has.get("startedAt")
    row = [
        item.name,
        item.environment,
        state_of(item),
        item.address or "-",
        str(has.get("image", "")),
        str(has.get("cpus", "")),
        _size(has.get("memory")),
        human_duration(now - started) if started else "-" if "startedAt" in has else "",
        " ".join(map(published, has.get("ports", ()))),
    ]
    if wide:
        workspace, pid = has.get("workspace"), has.get("pid")
        row += [
            str(has.get("network", "")),
            _size(has.get("disk")),
            human_duration(now - has["createdAt"]) if has.get("createdAt") else "",
            f"{workspace['host']} → {workspace['guest']}" if workspace else "",
            str(pid or ""),
        ]
    return [*row, message_of(item)]


def published(port: Mapping[str, Any]) -> str:
    """A published port as `127.0.0.1:8080→80`, `*:53→53/udp`."""
    address, protocol = port["hostAddress"] or "*", port["protocol"]
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port['hostPort']}→{port['guestPort']}{'' if protocol == 'tcp' else f'/{protocol}'}"


def _size(size: int | None) -> str:
    return human_size(size) if size is not None else ""
