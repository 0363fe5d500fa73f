"""Where text meets a terminal: colour, talk on stderr, data on stdout, and guests' bytes made harmless."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any, TextIO

import click

# A Select Graphic Rendition sequence (ECMA-48, 8.3.117): colours only, the one escape that boot logs are full of.
_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_KEPT = frozenset("\n\t")
# Directional overrides and isolates: they make a line read as something else (Unicode TR 36).
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def coloured(stream: TextIO) -> bool:
    """Whether colour may go to `stream`: a terminal that can, and a user who has not said no (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def draws(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose cursor can be moved. NO_COLOR says nothing about that."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def say(text: str, **style: Any) -> None:
    """One line of talk, on stderr. `style` as for `click.style`."""
    click.echo(click.style(text, **style) if style else text, err=True, color=coloured(sys.stderr))


def put(text: str) -> None:
    """Data, on stdout, ended by one newline. Styled text loses its colours where they are not wanted."""
    click.echo(text.removesuffix("\n"), color=coloured(sys.stdout))


def harmless(text: str) -> str:
    """Text from a guest or another program, unable to move a cursor, set a title or reorder what is read.

    Colours are dropped; other control characters are shown in caret or `\\u` notation.
    """
    plain = _SGR.sub("", text).replace("\r\n", "\n")
    if plain.isprintable():
        return plain
    return "".join(map(_harmless, plain))


def _harmless(char: str) -> str:
    if char in _KEPT:
        return char
    code = ord(char)
    if code < 0x20:
        return f"^{chr(code + 0x40)}"
    if code == 0x7F:
        return "^?"
    if char in _BIDI or unicodedata.category(char) == "Cc":
        return f"\\u{code:04x}"
    return char


def asks() -> bool:
    """Whether there is somebody to ask: a terminal to read from, and one to put the question on."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def invocation() -> str:
    """How the user can call banger again: its bare name if that is what the shell would find."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python3 -m reconciler"
    if called.name != "banger":
        return "banger"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = Path(folder or ".") / "banger"
        if os.access(candidate, os.X_OK):
            return "banger" if candidate.resolve() == called.resolve() else str(called)
    return str(called)
