"""What tests of images of registries share: building one, and looking at what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from reconciler.drivers.images import build as builder
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import Image, OciImage

needs_tools = pytest.mark.skipif(
    not (shutil.which("skopeo") and shutil.which("bwrap") and shutil.which("sqfstar")),
    reason="needs skopeo, bubblewrap and squashfs-tools",
)


def made(reference: str, **fields: Any) -> Image:
    return Image(name="x", source=OciImage(ref=reference, tls_verify=False, **fields), kernel="k")


def built(wanted: Image, paths: Paths) -> dict[str, Any]:
    """Builds, and returns what the image says of itself."""
    builder.build(wanted, paths, Silent())
    (found,) = (folder for folder in paths.images.iterdir() if not folder.name.startswith("."))
    manifest: dict[str, Any] = json.loads((found / "image.json").read_text())
    assert manifest["id"] == found.name
    return manifest


def content(paths: Paths, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Path → content of the regular files of an image."""
    squashfs = paths.image(manifest["id"]).squashfs
    names = subprocess.run(["unsquashfs", "-ls", "-dest", "", squashfs], capture_output=True, check=True, text=True)
    files = [line for line in names.stdout.splitlines() if line.count("/") >= 1]
    found = {}
    for file in files:
        shown = subprocess.run(["unsquashfs", "-cat", squashfs, file.lstrip("/")], check=False, capture_output=True)
        if shown.returncode == 0:
            found[file] = shown.stdout
    return found


def leftovers(paths: Paths) -> list[str]:
    """Everything in the cache but locks, and answers about tags."""
    return sorted(
        str(path.relative_to(paths.cache))
        for path in paths.cache.rglob("*")
        if path.is_file() and path.parent.name not in (".locks", "refs")
    )


BASE = {"etc": None, "etc/os-release": b"ID=test\n", "old": b"1"}
UPPER = {".wh.old": b"", "new": b"2"}
