"""Writes docs/cli.md from the commands' own help texts: `python -m reconciler.cli.reference`. A test keeps it current."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from reconciler.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_WIDTH = 100

EXIT_CODES = {
    "0": "done",
    "1": "failed, or something is held back until somebody allows it",
    "2": "wrong usage, or an invalid file; nothing was done",
    "3": "there is something to do (`plan --exit-code`)",
    "4": "everything was done, and something was not ready in time",
    "128+n": "ended by signal n: 130 after Ctrl-C, 143 after SIGTERM",
}
PASSED_ON = "`exec` and `ssh` pass the guest's exit code; 255 is ssh's own, when it could not connect."
TOPICS = {
    "Variables": """Every option can be given by a variable named after its long form, the same for all commands that have
it: `BANGER_FILE`, `BANGER_TIMEOUT=5m`, `BANGER_YES=1`, `BANGER_OUTPUT=json`. The command line goes before the variable.
Options that may be repeated take their values separated by blanks: `BANGER_SET="a=1 b=2"`. Beside those:
`BANGER_HOME` (one folder for state, cache and sockets), `BANGER_PARAM_x` (the parameter `x` of a file),
`BANGER_DEBUG=1` (tracebacks), `NO_COLOR` (no colours).""",
    "References": """A VM is `dev` where that is unambiguous, else `demo/dev`; `vm/dev` and `vm/demo/dev`, as `-o name`
prints them, mean the same. With `-f FILE` or a `./banger.yaml`, a bare name is looked up in that file's environment.""",
    "Streams": """stdout is data, stderr is talk: progress, questions, errors. An error is its cause, a hint, and the
command that replays it.""",
}


def page() -> str:
    """The whole page."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    topics = "".join(f"\n**{name}.** {text}\n" for name, text in TOPICS.items())
    head = (
        "# The command line\n\nThis page is made from the commands' own help texts; `make docs` writes it again.\n\n"
        f"| exit code | meaning |\n|---|---|\n{codes}\n{PASSED_ON}\n{topics}"
    )
    return head + "".join(f"\n## {path}\n\n```text\n{text}\n```\n" for path, text in _helps(cli, "banger", None))


def _helps(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command,
        info_name=path if parent is None else path.rpartition(" ")[2],
        parent=parent,
        terminal_width=_WIDTH,
        **{**command.context_settings, "max_content_width": _WIDTH},
    )
    yield path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _helps(found, f"{path} {name}", context)


if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith("BANGER_")]:
        del os.environ[variable]
    PAGE.write_text(page(), encoding="utf-8")
