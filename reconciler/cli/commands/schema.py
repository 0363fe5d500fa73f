"""`banger schema`."""

from __future__ import annotations

import click

from reconciler.cli import resources
from reconciler.cli.terminal import put


@click.command()
@click.argument(
    "which", metavar="[banger|plan|status|event|helper|catalog]", type=click.Choice(resources.SCHEMAS), default="banger"
)
def schema(*, which: str) -> None:
    """Print a JSON schema.

    Of banger.yaml (editors take it), of `plan -o json`, of `status -o json`, of the events of `events -o json`, of the root helper's requests, or of a catalog.
    """
    put(resources.schema(which))
