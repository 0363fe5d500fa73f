"""Images and kernels: what is published in the cache. A folder there is complete, or it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.paths import Paths
from reconciler.model.observed import Unknown


def observe_images(paths: Paths) -> frozenset[str] | Unknown:
    return _published(paths.images, lambda identity: paths.image(identity).manifest)


def observe_kernels(paths: Paths) -> frozenset[str] | Unknown:
    return _published(paths.kernels, lambda identity: paths.kernel(identity).manifest)


def observe_corpses(paths: Paths) -> tuple[str, ...]:
    """Staging folders of killed makers, in every place where something is staged: at most four folders deep."""
    found = []
    for root in (paths.state, paths.cache):
        for depth in range(5):
            for base in sorted(root.glob("*/" * depth + STAGING)):
                # What is staged inside a staging folder goes with it.
                if STAGING not in base.relative_to(root).parts[:-1]:
                    found += corpses(base.parent)
    return tuple(map(str, found))


def _published(folder: Path, manifest: Callable[[str], Path]) -> frozenset[str] | Unknown:
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        return frozenset(name for name in names if manifest(name).exists())
    except FileNotFoundError:
        return frozenset()
    except OSError as problem:
        return Unknown(f"{problem.strerror}: {folder}")
