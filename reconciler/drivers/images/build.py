"""An image of any source, published once: a squashfs, and a manifest that says what is in it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.drivers.images import debian
from reconciler.lib import builder
from reconciler.lib.once import once
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress
from reconciler.lib.run import require
from reconciler.model.artifacts import DebianImage, Image
from reconciler.model.codec import to_json

Make = Callable[[Any, ImagePaths, Path, Progress], dict[str, object]]
"""Makes the squashfs of an artifact, with a scratch folder that goes, and returns what the manifest says besides."""

_MAKE: Mapping[type, Make] = {DebianImage: debian.make}


def build(image: Image, paths: Paths, progress: Progress) -> None:
    """Builds an image and publishes it at `paths.image(image.id)`, unless it is there.

    Parameters
    ----------
    progress: gets the fraction of the whole work.

    Raises BangerError: retryable if what it comes from did not answer, else terminal.
    """
    target = paths.image(image.id).root
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "image", to_json(image), progress)
    else:
        once(target, progress, lambda folder, scratch: _build(image, ImagePaths(folder), scratch, progress))


def _build(image: Image, target: ImagePaths, scratch: Path, progress: Progress) -> None:
    require("sqfstar", "squashfs-tools")
    details = _MAKE[type(image.source)](image.source, target, scratch, progress)
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
