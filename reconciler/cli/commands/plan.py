"""`banger plan`."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.api.service import ApplyOptions
from reconciler.cli import plans, target, wire
from reconciler.cli.converge import finish
from reconciler.cli.options import (
    Output,
    allow_recreate_option,
    file_option,
    option,
    output_option,
    quiet_option,
    set_option,
)
from reconciler.cli.render import document
from reconciler.cli.terminal import put, say

DIFFERENCES = 3


@click.command()
@file_option()
@set_option()
@allow_recreate_option()
@option("--exit-code", "exit_code", is_flag=True, help="Exit with 3 if there is something to do.")
@option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Save the plan, for `banger apply FILE`.")
@output_option()
@quiet_option()
def plan(
    *,
    file: Path | None,
    settings: tuple[tuple[str, str], ...],
    allow_recreate: bool,
    exit_code: bool,
    out: Path | None,
    output: Output,
    quiet: bool,
) -> None:
    """Show what an apply would do, and why.

    Changes nothing. `+` adds, `~` changes, `-` takes away, `±` recreates, `!` is held back until somebody allows it.
    """
    loaded = target.load(file, dict(settings))
    with wire.service() as service:
        found = service.plan(loaded.desired, ApplyOptions(allow_recreate=allow_recreate))
    if out is not None:
        from reconciler.cli import planfile  # noqa: PLC0415

        planfile.save(
            out,
            found,
            source=loaded.path,
            digest=loaded.digest,
            settings=dict(settings),
            allow_recreate=allow_recreate,
        )
    match output:
        case Output.TABLE if quiet:
            pass
        case Output.TABLE:
            put(plans.text(found))
        case Output.NAME:
            for step in found.steps:
                put(step.id)
        case _:
            put(document(found.to_json(), output))
    if out is not None and not quiet:
        say(f"saved to {out}")
    finish(DIFFERENCES if exit_code and found.differs else 0)
