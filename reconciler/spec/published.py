"""The published schema: beside the package in a checkout, inside of it in an installed wheel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reconciler.lib.errors import BangerError

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def schema_text(which: str = "banger") -> str:
    """A schema as it is published. BangerError if the installation lacks it."""
    name = f"{which}.schema.json"
    # An installed wheel carries its own copy, which must win over a `schemas` folder that happens to lie beside it.
    for folder in (_PACKAGE / "_data" / "schemas", _PACKAGE.parent / "schemas"):
        try:
            return (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    raise BangerError(f"this installation lacks {name}", hint="install banger again")


@cache
def schema(which: str = "banger") -> Mapping[str, Any]:
    """A schema, by default that of the file, parsed once; shared, so to be read only."""
    result: Mapping[str, Any] = json.loads(schema_text(which))
    return result


def expand(described: Any) -> Any:
    """A part of a schema with each `$ref` replaced by what it points at; what stands beside a `$ref` wins.

    All of them are to the schema of the file, which has no cycles, and expanded it validates twice as fast.
    """
    if isinstance(described, list):
        return [expand(item) for item in described]
    if not isinstance(described, dict):
        return described
    own = {key: expand(value) for key, value in described.items() if key not in ("$ref", "$defs")}
    if "$ref" not in described:
        return own
    target: Any = schema()
    for part in described["$ref"].partition("#/")[2].split("/"):
        target = target[part]
    return {**expand(target), **own}


@cache
def defaults(name: str) -> Mapping[str, Any]:
    """The `default` of each key of one of the schema's definitions that has one."""
    properties = schema()["$defs"][name]["properties"]
    return {key: described["default"] for key, described in properties.items() if "default" in described}
