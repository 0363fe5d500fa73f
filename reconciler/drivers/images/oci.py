"""Container images: found by digest, fetched into the cache of blobs, flattened into the squashfs of an image.

Everything is fetched into a private folder, into which the blobs that are cached already are linked. So a pull that fails or
is killed leaves nothing in the cache, and blobs may be removed from the cache while an image is made of them. What has
arrived is added to the cache when the image is made, or when another attempt may need it; what was refused is not.

An image is independent of its blobs afterwards. They are kept for images that share them, and for making it again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from reconciler.drivers.images import skopeo
from reconciler.drivers.images.flatten import Layer, flatten, media_type
from reconciler.drivers.images.manifest import (
    LARGEST,
    Configuration,
    Descriptor,
    Manifest,
    RefusedError,
    configuration,
    read,
)
from reconciler.drivers.images.packing import Workshop
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.inuse import in_use, mark_used
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress
from reconciler.lib.resolutions import remember, remembered, stamp
from reconciler.lib.run import cancelled
from reconciler.lib.units import human_size
from reconciler.model.artifacts import OCI_RECIPE, OciImage, Pull
from reconciler.model.codec import to_json
from reconciler.model.reference import DIGEST, registry

_SILENCE_SECONDS = 60.0
_REFUSED = "the image is refused: "  # how `flatten` begins
_PULL_SHARE = 0.6  # of the work, by time


def resolve(source: OciImage) -> str:
    """The digest that a source has now: of a manifest, or of an index. Fetches nothing else, and writes nothing.

    Raises BangerError: retryable if asking again may help.
    """
    raw = skopeo.raw_manifest(source)
    digest = _digest(raw)
    with _told_of(source):
        read(raw, source.platform)  # what is no image is told at once
    if source.digest and source.digest != digest:
        raise BangerError(
            f"{source.where} has the digest {digest}, and not {source.digest}", error_class=ErrorClass.RETRYABLE
        )
    return digest


def found(source: OciImage, paths: Paths) -> OciImage:
    """The source, resolved: `pull: missing` by what is remembered, else by what is there now, which is remembered.

    Raises BangerError likewise, and if `pull: never` forbids to ask.
    """
    digest = "" if source.pull is Pull.ALWAYS else known(source, paths)
    if not digest and source.pull is Pull.NEVER and source.ref:
        raise BangerError(
            f"nothing is known of {source.where}, and `pull: never` does not allow to ask {registry(source.ref)}",
            hint="set `pull: missing` and apply, or `banger image lock` on a host that may",
        )
    if not digest:
        seen = stamp(source.where)
        digest = resolve(source)
        try:
            remember(paths.resolutions, source.where, digest, seen, time.time())
        except OSError as problem:
            raise BangerError(f"cannot write below {paths.resolutions}: {problem.strerror}") from problem
    return replace(source, digest=digest)


def known(source: OciImage, paths: Paths) -> str:
    """The digest that a source was found to have; nothing if nobody asked, or the answer may be out of date."""
    digest = remembered(paths.resolutions, source.where)
    return digest if re.fullmatch(DIGEST, digest) else ""


def make(
    source: OciImage, target: ImagePaths, scratch: Path, progress: Progress, workshop: Workshop
) -> dict[str, object]:
    """Makes the squashfs of `target` of an image whose digest is known. Returns what the manifest is to say besides.

    Raises BangerError: retryable if the registry did not answer as it should, terminal if the image is refused.
    """
    assert source.digest
    pull = _Pull(source, workshop.paths.blobs, scratch)
    progress.update(None, f"looking at {source.where}")
    try:
        with _told_of(source):
            manifest_digest, manifest = pull.manifest()
            pull.link(manifest)
            if missing := pull.missing(manifest):
                pull.fetch(manifest_digest, manifest, missing, progress)
            config = pull.configuration(manifest_digest, manifest)
            made = flatten(pull.layers(manifest, config), target.squashfs, scratch, _Rest(progress))
    except BangerError as problem:
        if problem.error_class is ErrorClass.TERMINAL:
            pull.forget_damaged()
        if problem.error_class is ErrorClass.RETRYABLE:
            pull.publish()
        raise
    pull.publish()
    return {
        "source": {key: value for key, value in to_json(source).items() if key in ("tag", "ref", "path", "platform")},
        "inputs": {"recipe": OCI_RECIPE, "digest": source.digest, "platform": source.platform},
        "digest": source.digest,
        "manifest": manifest_digest,
        "layers": [{"digest": layer.digest, "size": layer.size} for layer in manifest.layers],
        "config": config.run,
        "warnings": list(made.warnings),
    }


@contextmanager
def _told_of(source: OciImage) -> Iterator[None]:
    """An image that is refused is named."""
    try:
        yield
    except BangerError as problem:
        refused = problem.cause.removeprefix(_REFUSED)
        if not isinstance(problem, RefusedError) and refused == problem.cause:
            raise
        raise RefusedError(f"{source.where} is refused: {refused}", hint=problem.hint) from None


class _Rest:
    """What remains of the progress after the pull."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, fraction: float | None, message: str) -> None:
        share = None if fraction is None else _PULL_SHARE + (0.95 - _PULL_SHARE) * fraction
        self._progress.update(share, message)


class _Pull:
    """One image on its way into the cache.

    Parameters
    ----------
    blobs: the cache's.
    scratch: a folder on the same file system, which goes.
    """

    def __init__(self, source: OciImage, blobs: Path, scratch: Path) -> None:
        self._source = source
        self._cache = blobs
        self._scratch = scratch
        self._shared = scratch / "blobs"
        self._own = self._shared / "sha256"
        self._own.mkdir(parents=True)
        self._linked: set[str] = set()
        self._names: set[str] = set()
        self._local = bool(source.path)

    def manifest(self) -> tuple[str, Manifest]:
        """The manifest for the platform, and its digest."""
        digest = self._source.digest
        found = read(self._document(digest, top=True), self._source.platform)
        if isinstance(found, Descriptor):
            digest = found.digest
            found = read(self._document(digest, top=False), self._source.platform)
        if not isinstance(found, Manifest):
            raise RefusedError("the index leads to another index")
        return digest, found

    def link(self, manifest: Manifest) -> None:
        """Takes along what is cached."""
        self._names |= {blob.name for blob in (manifest.config, *manifest.layers)}
        for blob in (manifest.config, *manifest.layers):
            try:
                os.link(self._cache / blob.name, self._own / blob.name)
            except (FileNotFoundError, FileExistsError):
                continue
            if (self._own / blob.name).stat().st_size == blob.size:
                self._linked.add(blob.name)
                mark_used(self._own / blob.name)
            else:
                (self._own / blob.name).unlink()

    def missing(self, manifest: Manifest) -> list[Descriptor]:
        wanted = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
        return [blob for blob in wanted.values() if not (self._own / blob.name).exists()]

    def fetch(self, digest: str, manifest: Manifest, missing: list[Descriptor], progress: Progress) -> None:
        """Has what is missing brought here."""
        self._allowed("its layers are not in the cache")
        total = sum(blob.size for blob in missing)
        free = os.statvfs(self._scratch)
        if total > (room := free.f_bavail * free.f_frsize):
            raise BangerError(
                f"{self._source.where} needs {human_size(total)} in {self._cache}, which has {human_size(room)} left",
                hint="banger image cache prune",
            )
        layout = self._scratch / "layout"
        layout.mkdir(exist_ok=True)
        skopeo.copy(self._source, digest, layout, self._shared, _Watch(layout, self._own, missing, total, progress))
        for blob in self.missing(manifest):
            if blob != manifest.config:  # of Docker's, skopeo makes one of its own
                raise RefusedError(f"{blob.digest}, which its manifest names, did not come")
        for number, layer in enumerate(manifest.layers, 1):
            if (size := (self._own / layer.name).stat().st_size) != layer.size:
                raise RefusedError(f"layer {number} has {size} bytes, and its manifest says {layer.size}")

    def configuration(self, digest: str, manifest: Manifest) -> Configuration:
        file = self._own / manifest.config.name
        if not file.exists():
            write_atomic(file, skopeo.raw_configuration(self._source, digest))
        raw = _read(file)
        if _digest(raw) != manifest.config.digest or len(raw) != manifest.config.size:
            raise RefusedError("its configuration is not the one that the manifest names")
        return configuration(raw, manifest, self._source.platform)

    def layers(self, manifest: Manifest, config: Configuration) -> list[Layer]:
        return [
            Layer(
                path=self._own / layer.name,
                # For archives skopeo makes the manifest up, and always says gzip.
                media_type=media_type(self._own / layer.name) if self._local else layer.media_type,
                digest=layer.digest,
                size=layer.size,
                diff_id=diff_id,
            )
            for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        ]

    def publish(self) -> None:
        """Adds what has arrived whole to the cache; of an image on disk nothing, since it is there already.

        A file appears under its name at once, or not at all. What skopeo made for a layout of its own is left.
        """
        if self._local:
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        with in_use(self._cache):
            for name in sorted(self._names):
                try:
                    os.link(self._own / name, self._cache / name)
                except (FileExistsError, FileNotFoundError):
                    continue

    def forget_damaged(self) -> None:
        """Drops cached blobs that are not what their names say: the disk has changed them. Raises BangerError if it did."""
        for name in sorted(self._linked):
            with (self._own / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == name:
                    continue
            (self._cache / name).unlink(missing_ok=True)
            (self._own / name).unlink(missing_ok=True)
            raise BangerError(
                f"the cached blob {name[:12]} was damaged, and is fetched again", error_class=ErrorClass.RETRYABLE
            )

    def _document(self, digest: str, *, top: bool) -> bytes:
        """A manifest or an index by its digest, from the cache or from where it comes from."""
        self._names.add(digest.partition(":")[2])
        name = digest.partition(":")[2]
        for place in (self._cache / name, Path(self._source.path or "/dev/null") / "blobs/sha256" / name):
            try:
                raw = _read(place)
            except OSError:
                continue
            if _digest(raw) == digest:
                write_atomic(self._own / name, raw)
                return raw
        self._allowed("its manifest is not in the cache")
        raw = skopeo.raw_manifest(self._source, digest if self._source.ref else "")
        if _digest(raw) != digest:
            if top and self._local:
                raise BangerError(f"{self._source.path} has changed meanwhile", error_class=ErrorClass.RETRYABLE)
            raise BangerError(
                f"{self._source.where}: asked for {digest}, got {_digest(raw)}", error_class=ErrorClass.RETRYABLE
            )
        write_atomic(self._own / name, raw)
        return raw

    def _allowed(self, why: str) -> None:
        if self._source.pull is Pull.NEVER and not self._local:
            raise BangerError(
                f"{self._source.where}: {why}, and `pull: never` does not allow to fetch it",
                hint="set `pull: missing`, apply, and set it back",
            )


class _Watch:
    """Tells how many bytes have arrived, and ends a pull of which nothing arrives any more."""

    def __init__(self, layout: Path, own: Path, missing: list[Descriptor], total: int, progress: Progress) -> None:
        self._layout = layout
        self._own = own
        self._missing = missing
        self._total = total
        self._progress = progress
        self._seen = -1
        self._since = time.monotonic()

    def __call__(self) -> None:
        arrived = sum(blob.size for blob in self._missing if (self._own / blob.name).exists())
        for partial in self._layout.glob("oci-put-blob*"):
            try:
                arrived += partial.stat().st_size
            except FileNotFoundError:
                continue  # it is whole by now
        arrived = min(arrived, self._total)
        if arrived != self._seen:
            self._seen, self._since = arrived, time.monotonic()
            share = _PULL_SHARE * arrived / max(1, self._total)
            self._progress.update(share, f"pulling {human_size(arrived)} of {human_size(self._total)}")
        elif time.monotonic() - self._since > _SILENCE_SECONDS and not cancelled():
            raise BangerError(
                f"the registry has sent nothing for {_SILENCE_SECONDS:g} s,"
                f" after {human_size(arrived)} of {human_size(self._total)}",
                error_class=ErrorClass.RETRYABLE,
            )


def _read(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(LARGEST + 1)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
