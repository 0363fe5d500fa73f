"""Images of the cache, as JSON and back: what `banger image list -o json` prints."""

from __future__ import annotations

from typing import Any

from reconciler.api.service import CachedImage


def image_to(image: CachedImage) -> dict[str, Any]:
    return {
        "kind": "image",
        "name": image.id,
        "names": list(image.names),
        "source": image.source,
        "digest": image.digest,
        "size": image.size,
        "usedBy": list(image.used_by),
        "usedAt": image.used_at,
        "pinned": image.pinned,
        "manifest": dict(image.manifest),
    }


def image_from(data: dict[str, Any]) -> CachedImage:
    """The inverse of `image_to`."""
    return CachedImage(
        id=data["name"],
        names=tuple(data["names"]),
        source=data["source"],
        digest=data["digest"],
        size=data["size"],
        used_by=tuple(data["usedBy"]),
        used_at=data["usedAt"],
        pinned=data["pinned"],
        manifest=data["manifest"],
    )
