"""`banger image …`: the images in the cache, and what they came from."""

from __future__ import annotations

import re
from pathlib import Path

import click

from reconciler.api.service import ApplyOptions
from reconciler.cli import target, wire
from reconciler.cli.options import Output, file_option, option, output_option, quiet_option, vm_argument
from reconciler.cli.render import document
from reconciler.cli.reporter import reporting
from reconciler.cli.terminal import put
from reconciler.lib.units import human_size
from reconciler.model.ids import OBJECT_NAME
from reconciler.model.nouns import API_VERSION


def _valid(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(OBJECT_NAME, value):
        raise click.BadParameter("at most 31 lower-case letters, digits and hyphens that start with a letter")
    return value


@click.group()
def image() -> None:
    """Look after the images in the cache."""


@image.command()
@vm_argument()
@click.argument("name", metavar="NAME", callback=_valid)
@file_option()
@output_option()
@quiet_option()
def commit(*, file: Path | None, vm: str, name: str, output: Output, quiet: bool) -> None:
    """Make an image of a stopped VM's disk.

    Prints the lines that declare it under `images`. The file that they name is yours: nothing removes it. What belongs to
    one machine only, such as its host keys, is left out; what you put into its files, such as a password, is not.
    """
    with wire.service() as service, reporting(quiet=quiet) as reporter:
        made = service.commit(target.vm(service, vm, file), name, ApplyOptions(), reporter)
    facts = {"file": str(made.path), "sha256": made.sha256, "format": "squashfs", "kernel": made.kernel}
    if output in (Output.JSON, Output.YAML):
        put(document({"apiVersion": API_VERSION, "name": name, "size": made.size, **facts}, output))
    elif output is Output.NAME:
        put(str(made.path))
    else:
        put(document({"images": {name: facts}}, Output.YAML).rstrip())


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
