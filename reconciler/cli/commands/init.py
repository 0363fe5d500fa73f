"""`banger init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from reconciler.cli import resources
from reconciler.cli.options import file_option, option, quiet_option
from reconciler.cli.target import LOCAL_SPEC
from reconciler.cli.terminal import invocation, say
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.ids import ENVIRONMENT_NAME


@click.command()
@file_option(text="Where to write. [default: ./banger.yaml]")
@option("--name", metavar="NAME", help="The name of the environment. [default: demo]")
@quiet_option()
def init(*, file: Path | None, name: str | None, quiet: bool) -> None:
    """Write a commented banger.yaml to start from.

    An existing file is never overwritten.
    """
    path = file or LOCAL_SPEC
    content = _portable(resources.example())
    if name is not None:
        content = _named(content, name)
    try:
        # O_EXCL: of two at once one wins, and a dangling link is not followed (open(2)).
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(f"{path} exists; it stays as it is", hint="name another with -f FILE") from None
    except OSError as problem:
        raise BangerError(f"cannot write {path}: {problem.strerror}") from problem
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as target:
            target.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if not quiet:
        option_text = "" if path == LOCAL_SPEC else f" -f {path}"
        say(f"wrote {path}; next: {invocation()} apply{option_text}")


def _portable(content: str) -> str:
    """The example without what only makes sense beside our own sources."""
    lines = [line for line in content.splitlines() if not line.startswith("# yaml-language-server:")]
    while lines and lines[0].strip() == "#":
        del lines[0]
    return "\n".join(lines).replace("docs/spec.md", "`banger schema`, which editors understand too") + "\n"


def _named(content: str, name: str) -> str:
    import re  # noqa: PLC0415

    if not re.fullmatch(ENVIRONMENT_NAME, name):
        raise UsageError(
            f"{name!r} cannot be the name of an environment",
            hint="at most 31 lower-case letters, digits and dashes, a letter first",
        )
    return re.sub(r"^name:.*$", f"name: {name}", content, count=1, flags=re.MULTILINE)
