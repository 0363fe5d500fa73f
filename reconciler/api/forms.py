"""What is listed, as JSON and back: statuses, events, the trash, who answers.

The forms are those that `-o json` prints and `schemas/` describes. Apart from `plan_forms`, which loads what plans
are made of: `ps` does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler.api.service import ApplyOptions, Channel, Committed, ServiceInfo, SourceInfo, TrashEntry, VmRef, WayIn
from reconciler.model.codec import from_json
from reconciler.model.events import Event
from reconciler.model.nouns import API_VERSION, Noun
from reconciler.model.status import Condition, ConditionType, ObjectStatus, State

_STATUSES = {"True": True, "False": False, "Unknown": None}


def listing(items: Sequence[Any]) -> dict[str, Any]:
    """The form of every listing."""
    return {"apiVersion": API_VERSION, "items": list(items)}


def items(data: Any) -> list[Any]:
    """The items of a listing. KeyError, TypeError or ValueError for anything else."""
    if data["apiVersion"] != API_VERSION:
        raise ValueError(f"apiVersion {data['apiVersion']}")
    return list(data["items"])


def status_from(data: dict[str, Any]) -> ObjectStatus:
    """The inverse of `ObjectStatus.to_json`."""
    rest = dict(data)
    return ObjectStatus(
        kind=Noun(rest.pop("kind")),
        name=rest.pop("name"),
        environment=rest.pop("environment"),
        state=State(rest.pop("state")),
        ready=rest.pop("ready"),
        address=rest.pop("address"),
        conditions=tuple(map(_condition, rest.pop("conditions"))),
        details=rest,
    )


def _condition(data: dict[str, Any]) -> Condition:
    since = data["lastTransition"]
    return Condition(
        type=ConditionType(data["type"]),
        status=_STATUSES[data["status"]],
        reason=data["reason"],
        message=data["message"],
        since=None if since is None else datetime.fromisoformat(since).timestamp(),
    )


def event_from(data: dict[str, Any]) -> Event:
    """The inverse of `Event.to_json`."""
    rest = dict(data)
    rest["warning"] = rest.pop("type") == "Warning"
    return from_json(Event, rest)


def committed_to(made: Committed) -> dict[str, Any]:
    return {"path": str(made.path), "sha256": made.sha256, "size": made.size, "kernel": made.kernel}


def committed_from(data: dict[str, Any]) -> Committed:
    return Committed(path=Path(data["path"]), sha256=data["sha256"], size=data["size"], kernel=data["kernel"])


def ref_to(ref: VmRef) -> dict[str, Any]:
    return {"environment": ref.environment, "name": ref.name}


def ref_from(data: dict[str, Any]) -> VmRef:
    return VmRef(environment=data["environment"], name=data["name"])


def trash_to(entry: TrashEntry) -> dict[str, Any]:
    return {
        "entry": entry.entry,
        "environment": entry.environment,
        "name": entry.name,
        "trashedAt": entry.trashed_at,
        "size": entry.size,
    }


def trash_from(data: dict[str, Any]) -> TrashEntry:
    return TrashEntry(
        entry=data["entry"],
        environment=data["environment"],
        name=data["name"],
        trashed_at=data["trashedAt"],
        size=data["size"],
    )


def info_to(info: ServiceInfo) -> dict[str, Any]:
    return {
        "version": info.version,
        "pid": info.pid,
        "state": str(info.state),
        "controller": info.controller,
        "since": info.since,
        "sources": [
            {
                "path": str(source.path),
                "environment": source.environment,
                "problem": source.problem,
                "generation": source.generation,
                "since": source.since,
            }
            for source in info.sources
        ],
    }


def info_from(data: dict[str, Any]) -> ServiceInfo:
    sources = (SourceInfo(**{**source, "path": Path(source["path"])}) for source in data["sources"])
    return ServiceInfo(**{**data, "state": Path(data["state"]), "sources": tuple(sources)})


def options_to(options: ApplyOptions) -> dict[str, Any]:
    """Without the operation, which goes in a header as it does for every request."""
    return {
        "allowRecreate": options.allow_recreate,
        "expect": options.expect,
        "wait": options.wait,
        "timeout": options.timeout,
        "parallel": options.parallel,
    }


def options_from(data: dict[str, Any], operation: str) -> ApplyOptions:
    """What is not given is as in `ApplyOptions`."""
    names = {"allowRecreate": "allow_recreate"}
    return ApplyOptions(**{names.get(key, key): value for key, value in data.items()}, operation=operation)


def way_to(way: WayIn) -> dict[str, Any]:
    return {
        "channel": way.channel.value,
        "user": way.user,
        "root": str(way.root),
        "run": str(way.run),
        "argv": list(way.argv),
        "master": list(way.master),
        "control": None if way.control is None else str(way.control),
        "entry": None if way.entry is None else str(way.entry),
        "workspace": None if way.workspace is None else asdict(way.workspace),
    }


def way_from(data: Any) -> WayIn:
    from reconciler.model.vm import Workspace  # noqa: PLC0415  # who lists VMs does without

    return WayIn(
        channel=Channel(data["channel"]),
        user=str(data["user"]),
        root=Path(data["root"]),
        run=Path(data["run"]),
        argv=tuple(map(str, data["argv"])),
        master=tuple(map(str, data["master"])),
        control=None if data["control"] is None else Path(data["control"]),
        entry=None if data["entry"] is None else Path(data["entry"]),
        workspace=None if data["workspace"] is None else Workspace(**data["workspace"]),
    )
