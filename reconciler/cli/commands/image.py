"""`banger image …`: the images in the cache, and what they came from."""

from __future__ import annotations

import click

from reconciler.cli import wire
from reconciler.cli.options import Output, option, output_option, quiet_option
from reconciler.cli.render import document
from reconciler.cli.terminal import put
from reconciler.lib.units import human_size
from reconciler.model.nouns import API_VERSION


@click.group()
def image() -> None:
    """Look after the images in the cache."""


@image.group()
def cache() -> None:
    """Look after the blobs that images from registries were made of."""


@cache.command()
@option("-n", "--dry-run", is_flag=True, help="Only count what would be freed.")
@output_option()
@quiet_option()
def prune(*, dry_run: bool, output: Output, quiet: bool) -> None:
    """Empty the cache of blobs from registries.

    No image and no VM needs them: they only spare a download. `banger cache prune` removes less, by the file's policy.
    """
    with wire.service() as service:
        found = service.clear_blobs(dry_run)
    if output in (Output.JSON, Output.YAML):
        told = {"apiVersion": API_VERSION, "folder": str(found.folder), "blobs": found.blobs, "size": found.size}
        put(document({**told, "dryRun": dry_run}, output))
    elif output is Output.NAME:
        put(str(found.folder))
    elif not quiet:
        verb = "would free" if dry_run else "freed"
        put(f"{verb} {human_size(found.size)} across {found.blobs} blob(s) in {found.folder}")
