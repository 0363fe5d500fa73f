"""JSON values as YAML 1.2, without the weight of a YAML library.

Whatever is not a plainly harmless word is written as a JSON string, which YAML 1.2 reads as the same string
(section 1.2: JSON is a subset; the non-characters that JSON may leave bare are escaped).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
# What some YAML reader, 1.1 or 1.2, takes for something other than a string.
_SPECIAL = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
# Outside of c-printable (YAML 1.2.2, section 5.1), or a line break to YAML 1.1.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def dump(value: Any) -> str:
    """The YAML of what `json.loads` could have made. Keys keep their order."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _attached(f"{_scalar(str(key))}:", item, indent="  " if isinstance(item, Mapping) else "")
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _attached(key: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping | Sequence) and not isinstance(item, str) and item:
        yield key
        yield from (indent + line for line in _lines(item))
    else:
        yield f"{key} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _SPECIAL:
            return value
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence):
        return "[]"
    return json.dumps(value)
