"""Manifests, indexes and configurations of container images, read strictly and within bounds. Pure.

The OCI image specification 1.1 ("Image Manifest", "Image Index", "Image Configuration") and Docker's Image Manifest
Version 2, Schema 2. What names a digest was verified to have it before it comes here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.lib.errors import BangerError
from reconciler.lib.units import GIB, MIB
from reconciler.model.reference import DIGEST

LARGEST = 4 * MIB
"""Bytes of a manifest, as registries limit them (distribution specification), and of a configuration."""
MOST_LAYERS = 500
_LARGEST_BLOB = 1024 * GIB
_INDEXES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
_MANIFESTS = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
_CONFIGS = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
_MOST_ENTRIES = 1000


class RefusedError(BangerError):
    """The image is not what an image may be; asking again gives the same."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is, and how it is known (image specification, "OCI Content Descriptors"). `size` in bytes."""

    media_type: str
    digest: str
    size: int

    @property
    def name(self) -> str:
        """Of its file among the blobs."""
        return self.digest.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration, and its layers from the lowest to the highest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of all that it consists of."""
        return sum({blob.digest: blob.size for blob in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True)
class Configuration:
    """How a container of the image is run, in the keys of `image.json`, and the digests of its unpacked layers."""

    diff_ids: tuple[str, ...]
    run: Mapping[str, object]


def read(raw: bytes, platform: str) -> Manifest | Descriptor:
    """A manifest; or of an index, which manifest is that of `platform`. RefusedError for anything else."""
    document = _object(raw, "the manifest")
    media_type = document.get("mediaType")
    if media_type in _INDEXES or (media_type is None and "manifests" in document):
        return _choose(document, platform)
    if media_type not in _MANIFESTS and (media_type is not None or "layers" not in document):
        version = document.get("schemaVersion")
        what = f"the media type {media_type!r}" if media_type is not None else f"the schema version {version!r}"
        raise RefusedError(f"the manifest has {what}, which is no image of today's registries")
    layers = document.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        count = len(layers) if isinstance(layers, list) else "no"
        raise RefusedError(f"the image has {count} layers; 1 to {MOST_LAYERS} are possible")
    config = _descriptor(document.get("config"), "the configuration")
    if config.media_type not in _CONFIGS or config.size > LARGEST:
        raise RefusedError(
            f"its configuration is {config.media_type}, {config.size} bytes: an artifact that is no container image"
        )
    found = tuple(_descriptor(layer, f"layer {number}") for number, layer in enumerate(layers, 1))
    for number, layer in enumerate(layers, 1):
        if "foreign" in layer["mediaType"] or "nondistributable" in layer["mediaType"] or layer.get("urls"):
            raise RefusedError(f"layer {number} is not in the registry but somewhere else, which is not followed")
    return Manifest(config, found)


def configuration(raw: bytes, manifest: Manifest, platform: str) -> Configuration:
    """The configuration of an image. RefusedError if it does not fit the manifest, or is for another platform."""
    document = _object(raw, "the configuration")
    system, architecture = document.get("os"), document.get("architecture")
    wanted = platform.split("/")
    if (system, architecture) != (wanted[0], wanted[1]):
        raise RefusedError(
            f"the image is for {system}/{architecture}, and not for {platform}",
            hint="use an image for this host's processor",
        )
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise RefusedError(f"the configuration does not list the {len(manifest.layers)} layers of the manifest")
    for number, diff_id in enumerate(diff_ids, 1):
        if not isinstance(diff_id, str) or not re.fullmatch(DIGEST, diff_id):
            raise RefusedError(f"the configuration's digest of layer {number} is no sha256 digest")
    config = document.get("config")
    return Configuration(tuple(diff_ids), _run(config if isinstance(config, dict) else {}))


def _run(config: Mapping[str, Any]) -> dict[str, object]:
    ports = config.get("ExposedPorts")
    labels = config.get("Labels")
    return {
        "entrypoint": _texts(config.get("Entrypoint"), "Entrypoint"),
        "cmd": _texts(config.get("Cmd"), "Cmd"),
        "env": _texts(config.get("Env"), "Env"),
        "user": _text(config.get("User"), "User"),
        "workdir": _text(config.get("WorkingDir"), "WorkingDir"),
        "ports": sorted(_texts(list(ports) if isinstance(ports, dict) else None, "ExposedPorts")),
        "labels": {
            _text(key, "Labels"): _text(value, "Labels")
            for key, value in sorted((labels if isinstance(labels, dict) else {}).items())
        },
        "stopSignal": _text(config.get("StopSignal"), "StopSignal"),
    }


def _texts(value: object, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(f"{what} of the configuration is no list")
    return [_text(item, what) for item in value]


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise RefusedError(f"{what} of the configuration holds something else than text")
    return value


def _choose(index: Mapping[str, Any], platform: str) -> Descriptor:
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) > _MOST_ENTRIES:
        raise RefusedError("the index has no list of images, or one without end")
    system, architecture, *variant = platform.split("/")
    offered = []
    for entry in entries:
        of = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(of, dict):
            continue
        offered.append("/".join(str(of.get(key)) for key in ("os", "architecture", "variant") if of.get(key)))
        fits = (of.get("os"), of.get("architecture")) == (system, architecture)
        if fits and (not variant or of.get("variant") == variant[0]):
            found = _descriptor(entry, f"the image for {platform}")
            if found.media_type not in _MANIFESTS:
                raise RefusedError(f"the image for {platform} is of the type {found.media_type}")
            return found
    there = ", ".join(sorted({one for one in offered if not one.startswith("unknown")})[:20]) or "none"
    raise RefusedError(f"there is no image for {platform}", hint=f"it is there for: {there}")


def _descriptor(value: object, what: str) -> Descriptor:
    match value:
        case {"mediaType": str(kind), "digest": str(digest), "size": int(size)} if type(size) is int:
            if not re.fullmatch(DIGEST, digest):
                raise RefusedError(f"{what} has the digest {digest[:100]!r}; only sha256 is taken")
            if not 0 <= size <= _LARGEST_BLOB:
                raise RefusedError(f"{what} has the size {size}")
            return Descriptor(kind, digest, size)
    raise RefusedError(f"{what} lacks a media type, a digest or a size")


def _object(raw: bytes, what: str) -> dict[str, Any]:
    if len(raw) > LARGEST:
        raise RefusedError(f"{what} has {len(raw)} bytes, more than {LARGEST}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise RefusedError(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise RefusedError(f"{what} is no JSON object")
    return document
