"""`banger delete`."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.api.service import ApplyOptions
from reconciler.cli import target, wire
from reconciler.cli.converge import approval, conclude, finish
from reconciler.cli.options import file_option, parallel_option, quiet_option, yes_option
from reconciler.cli.reporter import reporting
from reconciler.cli.terminal import say


@click.command()
@click.argument("environment", required=False)
@file_option()
@yes_option()
@parallel_option()
@quiet_option()
def delete(*, environment: str | None, file: Path | None, yes: bool, parallel: int, quiet: bool) -> None:
    """Remove an environment; its disks go to the trash.

    ENVIRONMENT defaults to the file's, then to the only one there is. Refused while one of its VMs is protected.
    `banger vm restore` brings a VM back.
    """
    with wire.service() as service:
        chosen = target.existing_environment(service, environment, file)
        with reporting(quiet=quiet) as reporter:
            options = ApplyOptions(parallel=parallel)
            result = service.delete(chosen, options, reporter, approval(yes=yes, quiet=quiet))
        code = conclude(result)
    if code == 0 and not quiet:
        say(f"environment {chosen} is gone; its disks are in the trash (banger vm trash)")
    finish(code)
