"""`banger image lock`: which image each tag of a file is to be, written beside it for everybody who has the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from reconciler.cli import target, wire
from reconciler.cli.options import Output, file_option, option, output_option, quiet_option, set_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import put, say
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError
from reconciler.model.artifacts import short_digest

Catalogs = Mapping[str, Mapping[str, Any]]


@click.command()
@file_option()
@set_option()
@option("-n", "--dry-run", is_flag=True, help="Only show what would be written.")
@option("--prune", is_flag=True, help="Also drop what the file does not name (any more).")
@output_option()
@quiet_option()
def lock(  # the options of the command
    *,
    file: Path | None,
    settings: tuple[tuple[str, str], ...],
    dry_run: bool,
    prune: bool,
    output: Output,
    quiet: bool,
) -> None:
    """Write banger.lock: what each tag and each catalog entry means now.

    It is written beside the file, and belongs into the repository with it. From then on `banger plan`, `apply` and the
    controller take exactly these images and kernels, until the lock is written anew. Registries are asked, whatever is remembered. This is
    the only command that writes into the file's folder.
    """
    from reconciler.spec import lock as locks  # noqa: PLC0415  # brings the parser

    path = target.spec_file(file)
    loaded = target.load(path, dict(settings), heed_lock=False)
    before = locks.read_beside(path)
    with wire.service() as service:
        digests = dict(service.lock_images(loaded.desired))
    catalogs = loaded.catalogs
    if not prune:
        digests, catalogs = {**before.digests, **digests}, _merged(before.catalogs, catalogs)
    place = path.parent / locks.NAME
    old, new = _flat(before.digests, before.catalogs), _flat(digests, catalogs)
    if new != old and not dry_run:
        try:
            write_atomic(place, locks.written(digests, catalogs))
        except OSError as problem:
            raise BangerError(f"cannot write {place}: {problem.strerror}", hint=f"ls -ld {path.parent}") from None
    changes = [
        {"ref": ref, "old": old.get(ref), "new": new.get(ref)}
        for ref in sorted({*old, *new})
        if old.get(ref) != new.get(ref)
    ]
    if output is Output.NAME:
        put("\n".join(f"{ref}@{digest}" for ref, digest in sorted(new.items())))
    elif output is not Output.TABLE:
        put(document(listing(changes), output))
    elif not quiet:
        if changes:
            rows = [
                [str(c["ref"]), short_digest(c["old"] or "") or "-", short_digest(c["new"] or "") or "-"]
                for c in changes
            ]
            put(table(("REFERENCE", "WAS", "IS"), rows))
        say(
            f"{place}: "
            + (f"would be written, {len(new)} image(s)" if dry_run and changes else _told(len(new), changes))
        )


def _merged(old: Catalogs, new: Catalogs) -> Catalogs:
    """What is locked already, under what is locked now."""
    merged: dict[str, dict[str, Any]] = {name: dict(index) for name, index in old.items()}
    for name, index in new.items():
        into = merged.setdefault(name, {})
        for key, value in index.items():
            into[key] = {**into.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def _flat(digests: Mapping[str, str], catalogs: Catalogs) -> dict[str, str]:
    """One line for each thing that is locked: an entry of a catalog by the digest of what it says."""
    found = dict(digests)
    for name, index in catalogs.items():
        for section in ("images", "kernels"):
            for entry, content in index.get(section, {}).items():
                text = json.dumps(content, sort_keys=True).encode()
                found[f"{section.removesuffix('s')} {name}/{entry}"] = f"sha256:{hashlib.sha256(text).hexdigest()}"
    return found


def _told(count: int, changes: list[dict[str, str | None]]) -> str:
    return f"{count} image(s) locked" + ("" if changes else ", none of them another than before")
