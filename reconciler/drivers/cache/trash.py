"""What is in the trash, as its entries say themselves. Read-only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from reconciler.lib.paths import Paths
from reconciler.model.codec import from_json
from reconciler.model.vm import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`entry.json`. `vm` is None for volumes whose VM had gone before them."""

    environment: str
    name: str
    id: str
    trashed_at: float
    vm: Vm | None = None
    created: Mapping[str, str] | None = None
    address: IPv4Address | None = None
    created_at: float = 0.0


def entries(paths: Paths) -> list[tuple[str, Manifest]]:
    """What is in the trash, newest first. An entry that cannot be read is left out: it is not ours to judge."""
    found = []
    if paths.trash.is_dir():
        for folder in paths.trash.iterdir():
            try:
                found.append((folder.name, from_json(Manifest, json.loads((folder / "entry.json").read_text()))))
            except (OSError, ValueError):
                continue
    return sorted(found, key=lambda entry: entry[1].trashed_at, reverse=True)
