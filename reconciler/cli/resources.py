"""The files that come along: schemas and the example, from a checkout or from an installed wheel."""

from __future__ import annotations

from pathlib import Path

import reconciler
from reconciler.lib.errors import BangerError

SCHEMAS = ("banger", "plan", "status", "event", "helper", "catalog")
_PACKAGE = Path(reconciler.__file__).parent


def schema(which: str) -> str:
    """The text of one of SCHEMAS."""
    return _read(f"schemas/{which}.schema.json")


def example() -> str:
    """The text of banger.yaml.example."""
    return _read("banger.yaml.example")


def _read(name: str) -> str:
    # In a wheel they lie inside the package (pyproject.toml, force-include), in a checkout beside it.
    for folder in (_PACKAGE / "_data", _PACKAGE.parent):
        try:
            return (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    raise BangerError(f"{name} is missing from this installation", hint="install banger again")
