"""The one way in which a layer is refused."""

from __future__ import annotations


class RefusedError(Exception):
    """An image breaks a rule. The whole of it is refused; `str` says why, and names the entry."""


def shown(raw: bytes, longest: int = 120) -> str:
    """Bytes of a layer as text that no terminal takes for more: printable ASCII, the rest escaped, and bounded."""
    text = raw[:longest].decode("ascii", "backslashreplace")
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"'{text}{'…' if len(raw) > longest else ''}'"
