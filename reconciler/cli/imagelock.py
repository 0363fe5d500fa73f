"""`banger image lock`: which image each tag of a file is to be, written beside it for everybody who has the file."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli import target, wire
from reconciler.cli.options import Output, file_option, option, output_option, quiet_option, set_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import put, say
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError
from reconciler.model.artifacts import short_digest


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
    """Write banger.lock: what each tag means now, by digest.

    It is written beside the file, and belongs into the repository with it. From then on `banger plan`, `apply` and the
    controller take exactly these images, until the lock is written anew. Registries are asked, whatever is remembered. This is
    the only command that writes into the file's folder.
    """
    from reconciler.spec import lock as locks  # noqa: PLC0415  # brings the parser

    path = target.spec_file(file)
    loaded = target.load(path, dict(settings))
    old = dict(locks.read_beside(path).digests)
    with wire.service() as service:
        now = dict(service.lock_images(loaded.desired))
    new = now if prune else {**old, **now}
    place = path.parent / locks.NAME
    if new != old and not dry_run:
        try:
            write_atomic(place, locks.written(new))
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


def _told(count: int, changes: list[dict[str, str | None]]) -> str:
    return f"{count} image(s) locked" + ("" if changes else ", none of them another than before")
