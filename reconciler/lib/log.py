"""The log of a process that runs for long: one event, one line, on stderr.

For people `time level message key=value …`; for programs a JSON object; for the journal that object after the priority
that sd-daemon(3) describes. What a guest or another program says may stand in a message, so nothing in it can end
the line, move a cursor or reorder what is read.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Self, TextIO

_LONGEST = 2000
"""Characters of a message or a value. journald cuts a line of 48 KiB in two (LineMax=, journald.conf(5))."""
_PLAIN = re.compile(r'[^\s"=\\]+')


class Level(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def priority(self) -> int:
        """The level of syslog(3)."""
        return {Level.INFO: 6, Level.WARNING: 4, Level.ERROR: 3}[self]


class Format(StrEnum):
    """What a line looks like."""

    HUMAN = "human"
    JSON = "json"
    JOURNAL = "journal"


class Log:
    """Writes events; thread-safe. A stream that takes nothing more (a full disk, a closed pipe) stops nobody.

    Parameters
    ----------
    form: None asks BANGER_LOG_FORMAT and the stream, see `format_of`.
    clock: seconds since the epoch.
    """

    def __init__(self, stream: TextIO, form: Format | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._form = form or format_of(os.environ.get("BANGER_LOG_FORMAT", "auto"), stream)
        self._clock = clock
        self._lock = threading.Lock()
        self._bound: dict[str, object] = {}

    def bind(self, **fields: object) -> Self:
        """The same log, with fields that every event of it has."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._bound = {**self._bound, **fields}
        return other

    def info(self, message: str, /, **fields: object) -> None:
        """Something happened. A field that is None or empty is left out."""
        self._write(Level.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Something went wrong, and is tried again or waits for somebody."""
        self._write(Level.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Something went wrong for good."""
        self._write(Level.ERROR, message, fields)

    def _write(self, level: Level, message: str, fields: Mapping[str, object]) -> None:
        known = {key: value for key, value in {**self._bound, **fields}.items() if value is not None and value != ""}
        make = _human if self._form is Format.HUMAN else _json
        line = make(_timestamp(self._clock()), level, message, known)
        if self._form is Format.JOURNAL:
            line = f"<{level.priority}>{line}"
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass


def format_of(wanted: str, stream: TextIO) -> Format:
    """The format for a stream.

    Parameters
    ----------
    wanted: `human`, `json`, or anything else: JSON if the stream is the journal, else lines for people.
    """
    journal = _is_journal(stream)
    if wanted == Format.HUMAN or (wanted != Format.JSON and not journal):
        return Format.HUMAN
    return Format.JOURNAL if journal else Format.JSON


def _is_journal(stream: TextIO) -> bool:
    """Whether JOURNAL_STREAM, which children inherit, is about this very stream (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _timestamp(now: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds, part = divmod(int(now * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{part:03}Z"


def _human(stamp: str, level: Level, message: str, fields: Mapping[str, object]) -> str:
    return " ".join(
        [stamp, f"{level:<7}", _escaped(_cut(message)), *(f"{key}={_value(value)}" for key, value in fields.items())]
    )


def _value(value: object) -> str:
    text = _cut(_text(value))
    if text.isprintable() and _PLAIN.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(quoted)}"'


def _json(stamp: str, level: Level, message: str, fields: Mapping[str, object]) -> str:
    event = {"time": stamp, "level": level.value, "message": _cut(message)}
    more = {key: _scalar(value) for key, value in fields.items() if key not in event}
    # ASCII only: json.dumps would leave C1 controls, line separators and directional overrides as they are.
    return json.dumps({**event, **more}, ensure_ascii=True, separators=(",", ":"))


def _scalar(value: object) -> str | int | float | bool:
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _cut(_text(value))


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    # str.isprintable is False for control and format characters, separators but the space, and lone surrogates.
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
