"""Brings catalogs from elsewhere up to date: fetched, signature and content checked, and only then kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.drivers.images import catalog
from reconciler.lib.atomic import staging, write_atomic
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.catalog import CatalogSource
from reconciler.spec import catalogs


def update(paths: Paths, sources: Sequence[CatalogSource], note: Callable[[str], None]) -> None:
    """Fetches each. One that cannot be had, or is wrong, stays as it was, and the others are fetched all the same.

    Parameters
    ----------
    note: gets a line for each.

    Raises BangerError with all that went wrong.
    """
    wrong: list[BangerError] = []
    for source in sources:
        try:
            note(f"catalog {source.name}: {'up to date' if not _update(paths, source) else 'fetched anew'}")
        except BangerError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise BangerError("\n".join(error.cause for error in wrong))


def _update(paths: Paths, source: CatalogSource) -> bool:
    place = catalogs.key_file(paths.catalogs, source)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staging(place.parent) as scratch:
            index = catalog.fetch(source, scratch, Silent())
        catalogs.check(index, str(source), fetched=True)
        if place.is_file() and place.read_bytes() == index:
            return False
        write_atomic(place, index)
    except OSError as problem:
        raise BangerError(
            f"cannot keep catalog {source.name}: {problem.strerror}", hint=f"df -h {paths.cache}"
        ) from None
    return True
