"""The short way of `banger exec VM -- COMMAND`: over the connection that an earlier one left, without loading banger.

Whatever is not plain (options, variables that stand for options, a name that only the inventory can tell, no connection)
is left to `cli.commands.enter`, which says the same in full, and leaves the file that is read here.
"""

from __future__ import annotations

import os
import sys

from reconciler.lib import runtime

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    from collections.abc import Sequence

# ruff: noqa: PTH118, PTH110, PTH123  # pathlib takes longer to load than all that is done here

_HARMLESS = frozenset({"BANGER_HOME", "BANGER_DEBUG"})
_SPEC = "banger.yaml"
_READ_LIMIT = 1 << 20
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def attempt(argv: Sequence[str]) -> int | None:
    """The exit code of the command, or None if this is not the way. `argv` is the whole command line."""
    words = list(argv[1:])
    if (
        len(words) < 3
        or words[0] != "exec"
        or words[1].startswith("-")
        or (words[2].startswith("-") and words[2] != "--")
    ):
        return None
    command = words[3:] if words[2] == "--" else words[2:]
    if not command or any(name.startswith("BANGER_") and name not in _HARMLESS for name in os.environ):
        return None
    found = _reference(words[1])
    entry = found and _entry(*found)
    if not entry or (os.isatty(0) and os.isatty(1)):
        return None
    from reconciler.cli import guestrun  # noqa: PLC0415  # signals take a while to load

    return guestrun.over_ssh(entry, command)


def _reference(reference: str) -> tuple[str, str] | None:
    """Environment and VM, if they are as good as written out."""
    parts = reference.removeprefix("vm/").split("/")
    environment = parts[0] if len(parts) == 2 else plain_name() if len(parts) == 1 else None
    if not environment or not _NAME.issuperset(environment + parts[-1]) or not parts[-1]:
        return None
    return environment, parts[-1]


def plain_name() -> str | None:
    """The `name:` of ./banger.yaml if it stands there so plainly that no parser could read it otherwise."""
    try:
        with open(_SPEC, "rb") as file:
            text = file.read(_READ_LIMIT + 1)
    except OSError:
        return None
    lines = text.split(b"\n")
    names = [line for line in lines if line.startswith(b"name:")]
    if len(text) > _READ_LIMIT or len(names) != 1:
        return None
    # At the margin, anything but plain keys, lists and comments may mean another key `name`, or none.
    if any(line[:1] in b"{[%&!|>\"'?\xef*-." and line[:1] for line in lines):
        return None
    name = names[0][len(b"name:") :].strip().decode("ascii", "replace")
    return name if _NAME.issuperset(name) else None


def _entry(environment: str, vm: str) -> list[str] | None:
    """The program and arguments that join the shared connection. They outlive it only where it was killed."""
    folder = os.path.join(runtime.folder(os.environ, os.geteuid()), "vms", environment, vm)
    try:
        with open(os.path.join(folder, "ssh.entry"), "rb") as file:
            control, *words = file.read(_READ_LIMIT).decode().split("\0")
        return words if os.path.exists(control) else None
    except (OSError, ValueError):
        return None


def main() -> None:
    """The command `banger`."""
    code = attempt(sys.argv)
    if code is not None:
        sys.exit(code)
    from reconciler.cli.main import main as full  # noqa: PLC0415  # what the short way does without

    full()
