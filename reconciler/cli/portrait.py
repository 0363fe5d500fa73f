"""One VM with all that is known of it, as `banger vm show` prints it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.api.usage_forms import usage_to
from reconciler.cli.render import state_of, table
from reconciler.cli.terminal import harmless
from reconciler.cli.vmtables import published
from reconciler.lib.units import format_duration, human_duration, human_size, rfc3339
from reconciler.model.events import Event
from reconciler.model.status import ObjectStatus
from reconciler.model.usage import VmUsage


def to_json(item: ObjectStatus, usage: VmUsage | None, log: Path, events: Sequence[Event]) -> dict[str, Any]:
    """The object as `banger status` has it, with what it uses, where its console's log is, and what happened to it."""
    return {
        **item.to_json(),
        "usage": None if usage is None else usage_to(usage),
        "consoleLog": str(log),
        "events": [event.to_json() for event in events],
    }


def lines(item: ObjectStatus, usage: VmUsage | None, log: Path, events: Sequence[Event]) -> Iterator[str]:
    """For people."""
    has, now = item.details, time.time()
    yield from _pairs(
        ("vm", f"{item.environment}/{item.name}"),
        ("id", has.get("id")),
        ("state", state_of(item) + _since(item, now)),
        ("protected", "yes" if has.get("protect") else None),
        ("created", _when(has.get("createdAt"), now)),
        ("started", _when(has.get("startedAt"), now)),
        ("process", has.get("pid")),
        ("ttl", format_duration(has["ttl"]) if has.get("ttl") else None),
    )
    for condition in item.conditions:
        if condition.message:
            yield f"  {condition.type}: {condition.reason}: {' '.join(harmless(condition.message).split())}"
    yield ""
    yield from _pairs(
        ("image", has.get("image")),
        ("kernel", has.get("kernel")),
        ("cpus", has.get("cpus")),
        ("memory", _memory(has, usage)),
        ("cpu time", f"{usage.now.cpu:.1f} s" if usage and usage.now else None),
        ("network", has.get("network")),
        ("address", item.address),
        ("mac", has.get("mac")),
        ("traffic", _traffic(usage)),
        ("ports", " ".join(map(published, has.get("ports", ()))) or None),
        ("forwards", " ".join(f"127.0.0.1:{host}→{guest}" for guest, host in has.get("forwards", {}).items()) or None),
        ("console", str(log)),
    )
    yield from _disks(has, usage)
    yield from _inside(has)
    if events:
        yield ""
        rows = [[rfc3339(event.at), event.reason, " ".join(harmless(event.message).split())] for event in events]
        yield table(("EVENT", "WHAT", "MESSAGE"), rows)


def _pairs(*pairs: tuple[str, object]) -> Iterator[str]:
    for key, value in pairs:
        if value is not None and value != "":
            yield f"{key.ljust(10)}{value}"


def _since(item: ObjectStatus, now: float) -> str:
    since = next((c.since for c in item.conditions if c.type == "Ready" and c.since is not None), None)
    return f" for {human_duration(now - since)}" if since is not None else ""


def _when(at: float | None, now: float) -> str | None:
    return f"{rfc3339(at)}, {human_duration(now - at)} ago" if at else None


def _memory(has: Mapping[str, Any], usage: VmUsage | None) -> str | None:
    if has.get("memory") is None:
        return None
    taken = f", {human_size(usage.now.resident)} of the host's in use" if usage and usage.now else ""
    return human_size(has["memory"]) + taken


def _traffic(usage: VmUsage | None) -> str | None:
    if usage is None or usage.now is None or usage.now.received is None or usage.now.sent is None:
        return None
    return f"received {human_size(usage.now.received)}, sent {human_size(usage.now.sent)}"


def _disks(has: Mapping[str, Any], usage: VmUsage | None) -> Iterator[str]:
    mounts = {volume["name"]: volume["mount"] for volume in has.get("volumes", ())}
    if usage is not None and usage.disks:
        yield ""
        rows = [[d.name, mounts.get(d.name) or "/", human_size(d.allocated), human_size(d.size)] for d in usage.disks]
        yield table(("DISK", "MOUNT", "ON THE HOST", "SIZE"), rows)


def _inside(has: Mapping[str, Any]) -> Iterator[str]:
    workspace, steps = has.get("workspace"), has.get("provision")
    found = list(
        _pairs(
            ("workspace", f"{workspace['host']} → {workspace['guest']}" if workspace else None),
            ("files", " ".join(has.get("files", ()))),
            ("env", " ".join(has.get("env", ()))),
            ("secrets", " ".join(has.get("secrets", ()))),
            ("provision", f"{steps} step{'s' if steps > 1 else ''}" if steps else None),
        )
    )
    if found:
        yield ""
        yield from found
