"""`banger validate`."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli import target
from reconciler.cli.options import Output, file_option, output_option, quiet_option, set_option
from reconciler.cli.render import document
from reconciler.cli.terminal import put


@click.command()
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@file_option()
@set_option()
@output_option()
@quiet_option()
def validate(
    *, path: Path | None, file: Path | None, settings: tuple[tuple[str, str], ...], output: Output, quiet: bool
) -> None:
    """Check the file; all errors at once.

    Each error is `file:line:column: path: what is wrong, what would be right`, on stderr; the exit code is 2.
    """
    loaded = target.load(path or file, dict(settings))
    desired = loaded.desired
    counts = {
        "vms": len(desired.vms),
        "networks": len(desired.networks),
        "images": len(desired.images),
        "kernels": len(desired.kernels),
    }
    if quiet:
        return
    match output:
        case Output.TABLE:
            words = ", ".join(f"{n} {noun if n != 1 else noun.removesuffix('s')}" for noun, n in counts.items() if n)
            put(f"{loaded.path}: valid, {words or 'empty'}")
        case Output.NAME:
            put(desired.environment)
        case _:
            facts = {"file": str(loaded.path), "valid": True, "environment": desired.environment, **counts}
            put(document({"apiVersion": "banger/v1", **facts}, output))
