"""An image of any source, published once: a squashfs, and a manifest that says what is in it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.drivers.images import built, debian, oci, url
from reconciler.drivers.images.packing import Pack, Workshop, unavailable
from reconciler.lib import builder
from reconciler.lib.once import once
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress
from reconciler.lib.run import require
from reconciler.model.artifacts import BuiltImage, DebianImage, Image, OciImage, UrlImage
from reconciler.model.codec import to_json

Make = Callable[[Any, ImagePaths, Path, Progress, Workshop], dict[str, object]]
"""Makes the squashfs of an artifact, with a scratch folder that goes, and returns what the manifest says besides."""

_MAKE: Mapping[type, Make] = {
    DebianImage: debian.make,
    UrlImage: url.make,
    BuiltImage: built.make,
    OciImage: oci.make,
}


def build(image: Image, paths: Paths, progress: Progress, pack: Pack = unavailable) -> None:
    """Builds an image and publishes it at `paths.image(image.id)`, unless it is there.

    Of an image of a registry that is not resolved yet, it is found out first which one is meant, and remembered.

    Parameters
    ----------
    progress: gets the fraction of the whole work.
    pack: makes those images that are made in a guest.

    Raises BangerError: retryable if what it comes from did not answer, else terminal.
    """
    image = resolved(image, paths, progress)
    target = paths.image(image.id).root
    workshop = Workshop(paths, pack)
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "image", to_json(image), progress)
    else:
        once(target, progress, lambda folder, scratch: _build(image, ImagePaths(folder), scratch, progress, workshop))


def resolved(image: Image, paths: Paths, progress: Progress) -> Image:
    """The image, with its digest if it is of a registry."""
    if not isinstance(image.source, OciImage) or image.source.digest:
        return image
    progress.update(None, f"asking what {image.source.where} is")
    return replace(image, source=oci.found(image.source, paths))


def _build(image: Image, target: ImagePaths, scratch: Path, progress: Progress, workshop: Workshop) -> None:
    require("sqfstar", "squashfs-tools")
    details = _MAKE[type(image.source)](image.source, target, scratch, progress, workshop)
    progress.update(0.97, "recording what was built")
    target.squashfs.chmod(0o644)
    with target.squashfs.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {
        "apiVersion": "banger/v1",
        "kind": "image",
        "id": image.id,
        "sha256": digest,
        "size": target.squashfs.stat().st_size,
        **details,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    target.manifest.write_text(json.dumps(manifest, indent=2) + "\n")
