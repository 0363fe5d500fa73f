"""`banger.lock`, beside the file: which image each tag is to be, by digest, for everybody who has the file.

A JSON document, sorted and one line for each value, so that a version control system shows what changes. Only
`banger image lock` writes it. A tag that it does not name goes on as without it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.model.artifacts import OciImage
from reconciler.model.desired import DesiredState
from reconciler.model.nouns import API_VERSION
from reconciler.model.reference import DIGEST, canonical
from reconciler.spec.problems import Problem, SpecError
from reconciler.spec.source import read

NAME = "banger.lock"
SECTIONS = ("kernels", "images")
"""Of a catalog."""

Locked = Mapping[str, Mapping[str, Any]]
"""Catalog → an index of those of its entries that are meant."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Canonical reference → digest, catalog → the entries that are meant; and the bytes that said so, none without a file."""

    digests: Mapping[str, str] = field(default_factory=dict)
    catalogs: Locked = field(default_factory=dict)
    text: bytes = b""


def read_beside(file: Path) -> Lock:
    """The lock of a file's folder, an empty one if there is none. SpecError if it cannot be understood."""
    place = file.parent / NAME
    if not os.path.lexists(place):
        return Lock()
    text = read(place)
    try:
        return Lock(*_content(json.loads(text)), text)
    except (ValueError, RecursionError) as problem:
        hint = "`banger image lock` writes it anew; or remove it"
        raise SpecError([Problem(str(place), 0, 0, "", f"is no lock of images: {problem}", hint)]) from None


def honour(desired: DesiredState, lock: Lock) -> DesiredState:
    """The desired state with every tag that is locked as the image that it is to be."""
    sources = {name: image.source for name, image in desired.images.items() if isinstance(image.source, OciImage)}
    return desired.pinned({name: lock.digests.get(source.ref, "") for name, source in sources.items()})


def written(digests: Mapping[str, str], catalogs: Locked | None = None) -> bytes:
    """The content of a lock file."""
    images = [{"ref": ref, "digest": digest} for ref, digest in sorted(digests.items())]
    content: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "lock", "images": images}
    if catalogs:  # an older banger takes no such key
        content["catalogs"] = {name: catalogs[name] for name in sorted(catalogs)}
    return json.dumps(content, indent=2).encode() + b"\n"


def _content(document: object) -> tuple[dict[str, str], Locked]:
    match document:
        case {"apiVersion": "banger/v1", "kind": "lock", "images": list(entries), **rest} if not set(rest) - {
            "catalogs"
        }:
            return dict(map(_entry, entries)), _catalogs(rest.get("catalogs", {}))
    raise ValueError("it needs the keys apiVersion, kind and images, perhaps catalogs, and nothing else")


def _catalogs(found: object) -> Locked:
    """Their entries are held against the catalogs' schema when one of them is asked for."""
    if isinstance(found, dict) and all(isinstance(index, dict) for index in found.values()):
        sections = [index.get(section, {}) for index in found.values() for section in SECTIONS]
        if all(isinstance(section, dict) for section in sections):
            return found
    raise ValueError("catalogs: it needs a mapping of catalogs")


def _entry(entry: object) -> tuple[str, str]:
    match entry:
        case {"ref": str(ref), "digest": str(digest), **rest} if not rest and re.fullmatch(DIGEST, digest):
            if canonical(ref) == ref:
                return ref, digest
    raise ValueError(f"{json.dumps(entry)[:200]} is not a reference and its digest")
