"""Frozen dataclasses to JSON values and back, by their type hints.

Covers exactly what the model uses: dataclasses, unions of dataclasses that have a `tag`, named tuples, enums, tuples, mappings,
optionals, address types and scalars.
Strict on the way in: an unknown or missing field is a ValueError, since what is read was written by us. Pure.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
TAG = "tag"
"""The class attribute, and the key in JSON, by which members of a union tell themselves apart."""
_TEXTUAL = (IPv4Address, IPv4Network, IPv4Interface, IPv6Address, IPv6Network, IPv6Interface)


def to_json(value: object) -> Any:
    """A value of the model as what `json.dumps` takes. TypeError for anything else."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        tag = getattr(value, TAG, None)
        return {TAG: tag, **fields} if tag is not None else fields
    if isinstance(value, _TEXTUAL):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: to_json(item) for name, item in value._asdict().items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(item) for item in value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(kind: type[T], data: Any) -> T:
    """Builds a `kind` from what `to_json` made of one. ValueError names the field that does not fit."""
    result: T = _build(kind, data, kind.__name__)
    return result


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Field → its type."""
    hints = get_type_hints(kind)
    fields: tuple[str, ...] | None = getattr(kind, "_fields", None)
    names = fields or [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in names}


def _build(kind: Any, data: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in get_args(kind):
            return None
        members = [arg for arg in get_args(kind) if arg is not type(None)]
        return _build(members[0] if len(members) == 1 else _tagged(members, data, where), data, where)
    if origin is tuple:
        return tuple(_build(get_args(kind)[0], item, where) for item in _expect(list, data, where))
    if origin is not None and issubclass(origin, Mapping):
        value = get_args(kind)[1]
        return {key: _build(value, item, f"{where}.{key}") for key, item in _expect(dict, data, where).items()}
    if dataclasses.is_dataclass(kind) or (isinstance(kind, type) and hasattr(kind, "_field_defaults")):
        hints = _hints(kind)  # type: ignore[arg-type]  # is_dataclass narrows to an instance too
        given = dict(_expect(dict, data, where))
        tag = getattr(kind, TAG, None)
        if tag is not None and given.pop(TAG, None) != tag:
            raise ValueError(f"{where}: expected one with the {TAG} {tag!r}")
        if unknown := given.keys() - hints.keys():
            raise ValueError(f"{where}: unknown field {min(unknown)!r}")
        try:
            return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in given.items()})  # type: ignore[operator]
        except TypeError as problem:
            raise ValueError(f"{where}: {problem}") from None
    if issubclass(kind, (Enum, *_TEXTUAL)):
        text = _expect(str, data, where)  # the address types would take a number too
        try:
            return kind(text)
        except ValueError as problem:
            raise ValueError(f"{where}: {problem}") from None
    if kind is float and type(data) is int:
        return float(data)
    return _expect(kind, data, where)


def _tagged(members: list[Any], data: Any, where: str) -> Any:
    """Which member of a union the data is of: classes of a union tell themselves apart by their `tag`."""
    tag = _expect(dict, data, where).get(TAG)
    for member in members:
        if member.tag == tag:
            return member
    raise ValueError(f"{where}: unknown {TAG} {tag!r}")


def _expect(kind: type, data: Any, where: str) -> Any:
    if type(data) is not kind:
        raise ValueError(f"{where}: expected {kind.__name__}, got {type(data).__name__}")
    return data
