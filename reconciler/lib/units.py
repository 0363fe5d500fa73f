"""Sizes and durations as people write them: `512MiB`, `8GiB`, `30s`, `7d`. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_SIZES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(0|[1-9][0-9]{0,14})(B|KiB|MiB|GiB|TiB)")
_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """`"512MiB"` to bytes. Binary units only, whole numbers only; ValueError says what is right."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a whole number and B, KiB, MiB, GiB or TiB, such as 512MiB")
    return int(match[1]) * _SIZES[match[2]]


def format_size(size: int) -> str:
    """Bytes as the shortest text that `parse_size` reads back to the same number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def human_size(size: int) -> str:
    """Bytes for reading, not for parsing: `1.2 GiB`, `0 B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _SIZES[unit]:
            return f"{size / _SIZES[unit]:.1f} {unit}"
    return f"{size} B"


def parse_duration(text: str) -> float:
    """`"90s"` to seconds. ValueError says what is right."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a whole number and ms, s, m, h or d, such as 90s")
    return int(match[1]) * _DURATIONS[match[2]]


def format_duration(seconds: float) -> str:
    """Seconds as the shortest text that `parse_duration` reads back: `90s`, `2m`, `250ms`."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    whole = int(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % int(_DURATIONS[unit]) == 0:
            return f"{whole // int(_DURATIONS[unit])}{unit}"
    return f"{whole}s"


def human_duration(seconds: float) -> str:
    """Seconds for reading, not for parsing, by their two largest units: `42s`, `5m 10s`, `3d 4h`."""
    whole = max(0, int(seconds))
    for large, small in (("d", "h"), ("h", "m"), ("m", "s")):
        unit, part = int(_DURATIONS[large]), int(_DURATIONS[small])
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit}{large}" + (f" {rest}{small}" if rest else "")
    return f"{whole}s"


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00Z` (RFC 3339, UTC, whole seconds)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
