"""What the catalogs that a file can refer to have to offer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.lib.paths import Paths
from reconciler.model.artifacts import ImageSource, KernelSource
from reconciler.model.catalog import BUILT_IN, CatalogSource
from reconciler.spec import lock
from reconciler.spec.artifacts import image_source, kernel_source
from reconciler.spec.catalogs import Catalogs
from reconciler.spec.defaults import look_up, names_of
from reconciler.spec.pipeline import checked
from reconciler.spec.problems import SpecError
from reconciler.spec.source import read


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """An image or a kernel that can be asked for by name.

    Parameters
    ----------
    kind: `image` or `kernel`.
    kernel: of an image, what its catalog has it boot.
    locked: whether a lock file says what it means: then `source` is that.
    """

    catalog: str
    name: str
    kind: str
    description: str
    source: ImageSource | KernelSource
    kernel: str
    locked: bool

    @property
    def reference(self) -> str:
        """What a file calls it."""
        return self.name if self.catalog == BUILT_IN else f"{self.catalog}/{self.name}"


def sources_of(path: Path | None, settings: Mapping[str, str]) -> dict[str, CatalogSource]:
    """The catalogs that a file declares, by name; none without a file. SpecError if it is not right so far."""
    return _catalogs(path, settings).sources


def entries_of(path: Path | None, settings: Mapping[str, str]) -> tuple[list[CatalogEntry], list[str]]:
    """All entries of the built-in catalog and of those of a file, and what is wrong with catalogs that cannot be read."""
    catalogs = _catalogs(path, settings)
    found: list[CatalogEntry] = []
    for name in (BUILT_IN, *catalogs.sources):
        index = catalogs.index(name)
        if index is None:
            continue
        for section, reader in (("images", image_source), ("kernels", kernel_source)):
            for entry in names_of(index, section):
                place = catalogs.locked_or_not(name, section, entry) or index
                source = reader(place, (section, entry))
                if source is None:
                    continue
                texts = {key: look_up(place, (section, entry, key)) for key in ("description", "kernel")}
                found.append(
                    CatalogEntry(
                        catalog=name,
                        name=entry,
                        kind=section.removesuffix("s"),
                        description=texts["description"].value or "",
                        source=source,
                        kernel=texts["kernel"].value or "",
                        locked=place is not index,
                    )
                )
    catalogs.finish()
    return found, [str(problem) for problem in catalogs.problems]


def _catalogs(path: Path | None, settings: Mapping[str, str]) -> Catalogs:
    data = read(path) if path else b"{apiVersion: banger/v1, name: none}"
    document = checked(data, str(path or "none"), settings, os.environ)
    locked = lock.read_beside(path) if path else lock.Lock()
    catalogs = Catalogs(document, locked.catalogs, Paths.discover().catalogs)
    if document.problems:
        raise SpecError(document.problems)
    return catalogs
