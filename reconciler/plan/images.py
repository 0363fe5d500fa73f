"""Images: what the file declares and the cache lacks is built. What is cached needs nothing."""

from __future__ import annotations

from reconciler.model.actions import BuildImage
from reconciler.model.artifacts import Image
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.plan import Held


def plan_images(desired: DesiredState, observed: ObservedState) -> tuple[list[BuildImage], list[Held]]:
    """One build per missing identity: two names of the same image are one artifact."""
    if isinstance(observed.images, Unknown):
        reason = f"the images in the cache cannot be read: {observed.images.reason}"
        return [], [
            Held(object=f"image/{name}", reason=reason, release="make the cache readable") for name in desired.images
        ]
    missing: dict[str, Image] = {}
    for image in desired.images.values():
        if image.id in desired.unresolved and not image.unresolved:
            continue  # which image it is built on comes first
        if image.id not in observed.images:
            missing.setdefault(image.id, image)
    return [
        BuildImage(name=image.name, image=image, reason=f"images.{image.name} {_lacks(image)}")
        for image in missing.values()
    ], []


def _lacks(image: Image) -> str:
    return "is a tag whose meaning is not known yet" if image.unresolved else "is not in the cache"
