"""What can be wrong with a file, and where. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.lib.errors import UsageError

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the file down to a value."""

MAX_SHOWN = 50
MAX_PROBLEMS = 200  # more are not looked for: what is wrong everywhere is told by the first of them
MAX_QUOTED = 80
_FEW = 20  # words that are worth listing
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    line, column: where it stands, from 1; both 0 if the file could not be read at all.
    path: the value it is about, such as `vms.web.count`; empty for the file as a whole.
    message: what is wrong.
    hint: what would be right, or empty.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.path}: " if self.path else ""
        advice = f"; {self.hint}" if self.hint else ""
        return f"{position}: {subject}{self.message}{advice}"


class SpecError(UsageError):
    """The file is not right; nothing was done.

    `errors` holds every problem, sorted by position. The text holds one line for each of the first 50.
    """

    def __init__(self, errors: Iterable[Problem]) -> None:
        ordered = sorted(set(errors), key=lambda problem: (problem.line, problem.column, problem.path, problem.message))
        self.errors = tuple(ordered)
        lines = [str(problem) for problem in ordered[:MAX_SHOWN]]
        if len(ordered) > MAX_SHOWN:
            lines.append(f"and {len(ordered) - MAX_SHOWN} more")
        super().__init__("\n".join(lines))


def quote(value: object) -> str:
    """A value of the file for a message: control characters escaped, and cut after 80 characters."""
    if isinstance(value, str) and len(value) > MAX_QUOTED:
        return f"{value[:MAX_QUOTED]!r}…"
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def dotted(path: Path) -> str:
    """`("vms", "web", "packages", 0)` as `vms.web.packages[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quote(part)}]"
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, else the known words if they are few, else nothing."""
    candidates = sorted(known)
    near = difflib.get_close_matches(wrong[:64], candidates[:1000], n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if candidates and len(candidates) <= _FEW:
        return f"known here: {', '.join(candidates)}"
    return ""
