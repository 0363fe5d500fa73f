"""`banger controller`: the process that keeps the host as the files say."""

from __future__ import annotations

import os
from pathlib import Path

import click

from reconciler.cli import wire
from reconciler.cli.options import option
from reconciler.cli.target import LOCAL_SPEC
from reconciler.lib.errors import UsageError
from reconciler.lib.paths import SYSTEM_SPEC

_FORMATS = ("auto", "human", "json")


@click.command()
@option(
    "-f",
    "--file",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A file to watch; may be repeated. [default: ./banger.yaml, then the system's, if there is one]",
)
@option(
    "-d",
    "--directory",
    "directories",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="A folder whose *.yaml files are watched, one environment each; may be repeated.",
)
@option(
    "--log-format",
    type=click.Choice(_FORMATS),
    default="auto",
    show_default=True,
    help="Lines for people or JSON; auto: JSON for the journal, else lines.",
)
def controller(*, files: tuple[Path, ...], directories: tuple[Path, ...], log_format: str) -> None:
    """Watch the files and the host, and keep converging, until Ctrl-C or SIGTERM.

    Every environment of the state directory is kept as it was last asked for: by a watched file, or by `banger apply`.
    VMs, bridges and taps that break are repaired. A file that is broken or gone changes nothing until it is good again;
    a file that would delete more of its VMs than its `controller.maxDelete` waits for `banger approve`. Ending the
    controller, or starting a new version of it, leaves every VM running.

    The other commands ask the controller while it runs, and work the same without one.
    """
    for folder in directories:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder", hint="make it first, or watch a file with -f")
    sources = [*files, *directories] or [path for path in (LOCAL_SPEC, SYSTEM_SPEC) if os.path.lexists(path)][:1]
    wire.run_controller([path.absolute() for path in sources], log_format)
