"""What an unquoted word means: the core schema of YAML 1.2 (section 10.3.2), minus everything that surprises.

YAML 1.1 and 1.2 read some unquoted words differently, and people expect a third thing. Such a word is an error that
says how to write each meaning, so that a file means the same to every tool. Pure.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_CONSTANTS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
# The words that the parsers of YAML 1.1 take for true and false. They leave `y` and `n` alone, and so does this.
_OLD_BOOLEANS = frozenset(["yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"])
_NUMERIC_START = frozenset("0123456789+-.=<")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+][0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 18  # fits 64 bits, and keeps int() away from its quadratic and its limit

_NUMBERS = (
    (re.compile(r"[-+]?0[0-9_]+"), "is octal in YAML 1.1 and decimal in YAML 1.2"),
    (re.compile(r"[-+]?0o[0-7]+"), "is text in YAML 1.1 and an octal number in YAML 1.2"),
    (re.compile(r"[-+]?0b[01_]+"), "is a binary number in YAML 1.1 and text in YAML 1.2"),
    (re.compile(r"[-+]0x[0-9a-fA-F_]+|0x[0-9a-fA-F_]*_[0-9a-fA-F_]*"), "is a number in YAML 1.1 and text in YAML 1.2"),
    (re.compile(r"(?=.*_)(?:[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"), "is a number in YAML 1.1 and text in YAML 1.2"),
    (re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][0-9]+|[-+]?[0-9]+[eE][-+][0-9]+"), "is text in YAML 1.1 and a number in YAML 1.2"),
    (re.compile(r"[-+]?0[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?"), "is a number with a leading zero"),
)  # fmt: skip
_WORDS = (
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "is a base-60 number in YAML 1.1 and text in YAML 1.2"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?", re.DOTALL), "is a date in YAML 1.1 and text in YAML 1.2"),
    (re.compile(r"="), "has a meaning of its own in YAML 1.1"),
)  # fmt: skip


class ScalarError(ValueError):
    """An unquoted word that this file format does not take; `hint` says how to write what was meant."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar. ScalarError if it has two, or one that is out of bounds."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text in _OLD_BOOLEANS:
        raise ScalarError(
            "is true or false in YAML 1.1 and text in YAML 1.2", f"write true or false, or {in_quotes(text)}"
        )
    if text[0] not in _NUMERIC_START:
        return text
    if text == "<<":
        raise ScalarError("merge keys are not part of YAML 1.2", "put what VMs share under `defaults`")
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ScalarError(f"is a number of {len(text)} characters", f"a number has at most {_MAX_DIGITS}")
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1))
    for patterns, advice in ((_NUMBERS, "write a plain decimal number, or "), (_WORDS, "")):
        for pattern, meaning in patterns:
            if pattern.fullmatch(text):
                raise ScalarError(meaning, advice + in_quotes(text))
    return text


def in_quotes(text: str) -> str:
    """The hint to quote a word."""
    return f'quote it: "{text}"' if len(text) <= 40 else "quote it"
