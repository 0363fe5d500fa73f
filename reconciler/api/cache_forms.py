"""The cache and what a policy would do with it, as JSON and back: what `banger cache plan -o json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.api.service import CacheView, Cleared
from reconciler.model.nouns import API_VERSION
from reconciler.model.retention import Entry, EntryKind, SharedFile, Verdict


def verdict_to(verdict: Verdict) -> dict[str, Any]:
    entry = verdict.entry
    return {
        "kind": entry.kind.value,
        "name": entry.name,
        "environment": entry.environment,
        "protected": entry.protected,
        "size": entry.size,
        "shared": [file._asdict() for file in entry.shared],
        "madeAt": entry.made_at,
        "usedAt": entry.used_at,
        "evict": verdict.evict,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "frees": verdict.frees,
    }


def _verdict_from(data: dict[str, Any]) -> Verdict:
    entry = Entry(
        kind=EntryKind(data["kind"]),
        name=data["name"],
        size=data["size"],
        made_at=data["madeAt"],
        used_at=data["usedAt"],
        shared=tuple(SharedFile(**file) for file in data["shared"]),
        environment=data["environment"],
        protected=data["protected"],
    )
    return Verdict(entry, data["evict"], data["rule"], data["reason"], data["frees"])


def view_to(view: CacheView) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "folder": str(view.folder),
        "used": view.used,
        "free": view.free,
        "total": view.total,
        "limit": view.limit,
        "pressed": view.pressed,
        "policy": view.policy,
        "items": [verdict_to(verdict) for verdict in view.verdicts],
    }


def view_from(data: dict[str, Any]) -> CacheView:
    """The inverse of `view_to`. KeyError, TypeError or ValueError for anything else."""
    rest = {key: value for key, value in data.items() if key not in ("apiVersion", "items", "folder")}
    return CacheView(folder=Path(data["folder"]), verdicts=tuple(map(_verdict_from, data["items"])), **rest)


def cleared_to(cleared: Cleared) -> dict[str, Any]:
    return {"folder": str(cleared.folder), "blobs": cleared.blobs, "size": cleared.size}


def cleared_from(data: dict[str, Any]) -> Cleared:
    return Cleared(folder=Path(data["folder"]), blobs=data["blobs"], size=data["size"])
