"""Images, kernels and guest tools: what is published in the cache. A folder there is complete, or it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.lib.atomic import corpses, staging_bases
from reconciler.lib.paths import Paths
from reconciler.model.observed import Unknown


def observe_images(paths: Paths) -> frozenset[str] | Unknown:
    return _published(paths.images, lambda identity: paths.image(identity).manifest)


def observe_kernels(paths: Paths) -> frozenset[str] | Unknown:
    return _published(paths.kernels, lambda identity: paths.kernel(identity).manifest)


def observe_tools(paths: Paths) -> frozenset[str] | Unknown:
    return _published(paths.tools, lambda identity: paths.tools_disk(identity).manifest)


def observe_corpses(paths: Paths) -> tuple[str, ...]:
    """Staging folders of killed makers, in every place where something is staged: at most four folders deep."""
    bases = [base for root in (paths.state, paths.cache) for base in staging_bases(root)]
    return tuple(str(folder) for base in bases for folder in corpses(base.parent))


def _published(folder: Path, manifest: Callable[[str], Path]) -> frozenset[str] | Unknown:
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        return frozenset(name for name in names if manifest(name).exists())
    except FileNotFoundError:
        return frozenset()
    except OSError as problem:
        return Unknown(f"{problem.strerror}: {folder}")
