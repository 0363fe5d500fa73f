"""What a command is about: which file, which environment, which VM.

A file is read for its `name` alone where nothing else is needed, and without a YAML parser where one line
tells it: `ps` is called often and has to be quick, and works beside a file that is being edited.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.lib.errors import UsageError
from reconciler.lib.paths import SYSTEM_SPEC
from reconciler.model.ids import ENVIRONMENT_NAME

if TYPE_CHECKING:
    from reconciler.api.service import Service, VmRef
    from reconciler.spec import Loaded

LOCAL_SPEC = Path("banger.yaml")
_READ_LIMIT = 1 << 20
# A whole line at the margin that can only be the top-level key; anything less plain goes to the parser.
_NAME_LINE = re.compile(rf"""^name:[ ]+(["']?)({ENVIRONMENT_NAME})\1[ ]*(?:[ ]#.*)?$""", re.MULTILINE)
_NAME_KEY = re.compile(r"""^(?:\?[ ]+)?["']?name["']?[ ]*:""", re.MULTILINE)
_NOT_BLOCK = re.compile(r"^[{\[%&!|>]|^---[ ]*\S|^\.\.\.", re.MULTILINE)
_PREFIX = "vm/"


def spec_file(given: Path | None) -> Path:
    """The file that a command works on. UsageError if there is none."""
    if given is not None:
        return given
    for candidate in (LOCAL_SPEC, SYSTEM_SPEC):
        if os.path.lexists(candidate):
            return candidate
    raise UsageError(
        f"there is no {LOCAL_SPEC} here, and no {SYSTEM_SPEC}",
        hint="write one with `banger init`, or name another with -f FILE",
    )


def load(given: Path | None, settings: Mapping[str, str], *, heed_lock: bool = True) -> Loaded:
    """The desired state of the file, valid; `heed_lock`: whether its lock counts. SpecError with every problem otherwise."""
    from reconciler.spec import load_file  # noqa: PLC0415  # brings the parser

    return load_file(spec_file(given), settings, heed_lock=heed_lock)


def environment(given: Path | None) -> str | None:
    """The environment of `-f FILE` or of ./banger.yaml; None without either. Reads as little as it can."""
    if given is None:
        if not os.path.lexists(LOCAL_SPEC):
            return None
        given = LOCAL_SPEC
    name = plain_name(_read(given))
    if name is not None:
        return name
    return load(given, {}).desired.environment


def plain_name(text: str) -> str | None:
    """The value of a top-level `name:` that stands on a line of its own, or None if only a parser can tell."""
    if _NOT_BLOCK.search(text):
        return None
    found = _NAME_LINE.findall(text)
    if len(found) != 1 or len(_NAME_KEY.findall(text)) != 1:
        return None
    return str(found[0][1])


def _read(path: Path) -> str:
    """The text of a regular file of decent size; otherwise nothing, and the spec reader will say what is wrong."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _READ_LIMIT:
            return ""
        return os.read(fd, _READ_LIMIT).decode().replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return ""
    finally:
        os.close(fd)


def vm(service: Service, reference: str, file: Path | None) -> VmRef:
    """The VM that `dev`, `demo/dev`, `vm/dev` or `vm/demo/dev` means. UsageError if that is none, or several."""
    name = reference.removeprefix(_PREFIX)
    if "/" in name:
        return service.resolve(name, None)
    return service.resolve(name, environment(file))


def existing_environment(service: Service, name: str | None, file: Path | None) -> str:
    """The environment to delete: named, of the file, or the only one there is. UsageError names the choice."""
    known = service.environments()
    chosen = name or environment(file)
    if chosen is None:
        if len(known) == 1:
            return known[0]
        if not known:
            raise UsageError("there is no environment", hint="`banger apply` makes one")
        raise UsageError("there are several environments", hint=f"name one of: {', '.join(known)}")
    if chosen not in known:
        hint = f"there are: {', '.join(known)}" if known else "there is none; `banger apply` makes one"
        raise UsageError(f"there is no environment {chosen}", hint=hint)
    return chosen
