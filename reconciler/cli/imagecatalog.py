"""`banger image catalog`: the images and kernels that can be asked for by name, and bringing their indexes up to date."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import target, wire
from reconciler.cli.options import Output, file_option, option, output_option, quiet_option, set_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say

if TYPE_CHECKING:
    from reconciler.spec.cataloged import CatalogEntry

_HEADER = ("CATALOG ENTRY", "KIND", "SOURCE", "KERNEL", "DESCRIPTION", "LOCKED")


@click.command()
@file_option()
@set_option()
@option(
    "--update",
    is_flag=True,
    help="First fetch the file's catalogs that come from elsewhere, and check their signatures.",
)
@output_option()
@quiet_option()
def catalog(
    *, file: Path | None, settings: tuple[tuple[str, str], ...], update: bool, output: Output, quiet: bool
) -> None:
    """List the images and kernels that can be asked for by name.

    Those of the built-in catalog, and of the `catalogs` of the file if there is one. In banger.yaml:
    `images: {base: {catalog: debian-12}}`. An index from elsewhere is fetched by --update and by nothing else: what an entry
    means changes then only, and `banger plan` shows what that would change. `banger image lock` pins what entries mean.
    """
    from reconciler.spec.cataloged import entries_of, sources_of  # noqa: PLC0415  # brings the parser

    path = target.spec_file(file) if file or os.path.lexists(target.LOCAL_SPEC) else None
    if update:
        fetched = [source for source in sources_of(path, dict(settings)).values() if source.fetched]
        wire.update_catalogs(fetched, (lambda line: None) if quiet else say)
        if not fetched and not quiet:
            say("no catalog of this file comes from elsewhere")
    entries, problems = entries_of(path, dict(settings))
    for problem in problems:
        say(f"warning: {harmless(problem)}")
    if output is Output.NAME:
        for entry in entries:
            put(f"{entry.kind}/{entry.reference}")
    elif output is not Output.TABLE:
        put(document(listing([_form(entry) for entry in entries]), output))
    else:
        put(table(_HEADER, [_row(entry) for entry in entries]))


def _form(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "kind": "catalogEntry",
        "name": entry.reference,
        "catalog": entry.catalog,
        "type": entry.kind,
        "id": entry.source.id,
        "source": str(entry.source),
        "kernel": entry.kernel or None,
        "description": entry.description,
        "locked": entry.locked,
    }


def _row(entry: CatalogEntry) -> list[str]:
    return [
        entry.reference,
        entry.kind,
        harmless(str(entry.source)),
        entry.kernel or "-",
        harmless(entry.description),
        "yes" if entry.locked else "",
    ]
