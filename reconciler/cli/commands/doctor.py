"""`banger doctor`."""

from __future__ import annotations

import click

from reconciler.cli.converge import FAILED, finish
from reconciler.cli.options import Output, output_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say
from reconciler.doctor import Status, examine, install_hint
from reconciler.lib.paths import Paths

_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@output_option()
def doctor(*, output: Output) -> None:
    """Check what this host lacks.

    The exit code is 1 if a check fails; a warning is something that only some files need.
    """
    checks = examine(Paths.discover())
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([check.to_json() for check in checks]), output))
        case Output.NAME:
            for check in checks:
                put(check.name)
        case Output.TABLE:
            rows = [
                [check.name, click.style(check.status.value, fg=_COLOURS[check.status]), harmless(check.detail)]
                for check in checks
            ]
            put(table(["CHECK", "STATUS", "DETAIL"], rows))
            for check in checks:
                if check.hint:
                    say(f"{check.name}: {harmless(check.hint)}", fg=_COLOURS[check.status])
            if command := install_hint(checks):
                say(f"\nmissing packages: {command}")
    finish(FAILED if any(check.status is Status.FAIL for check in checks) else 0)
