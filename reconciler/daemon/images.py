"""The images of the cache as a person sees them: names, sources, who uses them; and what is done to single ones."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reconciler.api.service import CachedImage
from reconciler.daemon import pinning
from reconciler.daemon.engine import Engine
from reconciler.drivers.cache import evict, probe, trash
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.artifacts import OciImage
from reconciler.model.desired import DesiredState
from reconciler.model.retention import Entry, EntryKind

_LABELLED = re.compile(r"\(([0-9a-f]{16})\)")
_LARGEST_MANIFEST = 8 << 20


def images(engine: Engine) -> list[CachedImage]:
    """Every image of the cache, those with names first. Raises BangerError if it cannot be read."""
    try:
        entries = list(probe.entries(EntryKind.IMAGE, engine.paths.images))
    except OSError as problem:
        raise BangerError(f"the images in the cache cannot be read: {problem.strerror}") from problem
    names, sources, users = _asked_for(engine)
    pins = {pin.name for pin in engine.retention().pins() if pin.kind is EntryKind.IMAGE} if engine.exists else set()
    found = [_image(engine, entry, names, sources, users, pins) for entry in entries]
    return sorted(found, key=lambda image: (not image.names, image.names, image.id))


def remove(engine: Engine, identity: str) -> int:
    """Removes an image that nothing is made of. Returns the bytes that came free.

    Raises UsageError if a VM, or one in the trash, is made of it, or if it is pinned; BangerError if it is being used.
    """
    with engine.writing(_quietly):
        image = _find(engine, identity)
        if image.pinned:
            raise UsageError(f"image {identity} is pinned", hint=f"banger image unpin {identity}")
        gone = evict.evict(engine.paths.images, [(identity, image.used_at)], _needed(engine), files=False)
    if why := gone.spared.get(identity):
        raise UsageError(f"image {identity} is not removed: {why}", hint="banger image list shows what uses it")
    return image.size


def pin(engine: Engine, identity: str, *, pinned: bool) -> bool:
    """Has an image kept whatever a policy says, or no longer. False: it was so already."""
    with engine.writing(_quietly):
        if pinned:
            _find(engine, identity)
            return engine.retention().pin(EntryKind.IMAGE, identity, engine.clock.now())
        return engine.retention().unpin(EntryKind.IMAGE, identity)


def lock(engine: Engine, desired: DesiredState) -> dict[str, str]:
    """What each tag of the file means now, by reference. Writes nothing. Raises BangerError if one cannot be found out."""
    return {source.ref: source.digest for source in pinning.locked(desired)}


def _quietly(message: str) -> None:
    """Somebody else is changing things, which ends."""


def _find(engine: Engine, identity: str) -> CachedImage:
    for image in images(engine):
        if image.id == identity:
            return image
    raise UsageError(f"there is no image {identity} in the cache", hint="banger image list")


def _asked_for(engine: Engine) -> tuple[Mapping[str, list[str]], Mapping[str, str], Mapping[str, list[str]]]:
    """By identity: the names that files give an image, what it is made from, and the VMs that are made of it."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    sources: dict[str, str] = {}
    if not engine.exists:
        return names, sources, {}
    inventory = engine.inventory()
    for environment in inventory.environment_names():
        row = inventory.environment(environment)
        desired = pinning.by_memory(engine.paths, row.desired) if row is not None else None
        for image in desired.images.values() if desired is not None else ():
            names[image.id].append(f"{environment}/{image.name}")
            sources[image.id] = image.source.where if isinstance(image.source, OciImage) else str(image.source)
    return names, sources, _users(engine)


def _users(engine: Engine) -> Mapping[str, list[str]]:
    """Identity → the VMs that are made of it, or could be brought back from the trash with it."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for row in engine.inventory().vms():
        made_of = set(_LABELLED.findall(" ".join(row.created.values())))
        for identity in sorted(made_of or {row.spec.image_id}):
            users[identity].append(f"{row.environment}/{row.name}")
    for entry, manifest in trash.entries(engine.paths):
        if manifest.vm is not None:
            users[manifest.vm.image_id].append(f"trash/{entry}")
    return users


def _needed(engine: Engine) -> evict.Needed:
    @contextmanager
    def needed() -> Iterator[Callable[[str], str | None]]:
        # As for every eviction: nobody can begin to need it until this ends.
        with engine.inventory().frozen():
            users = _users(engine)

            def why(identity: str) -> str | None:
                return f"{', '.join(users[identity])} is made of it" if users.get(identity) else None

            yield why

    return needed


def _image(  # noqa: PLR0917  # what is known of all of them
    engine: Engine,
    entry: Entry,
    names: Mapping[str, list[str]],
    sources: Mapping[str, str],
    users: Mapping[str, list[str]],
    pins: set[str],
) -> CachedImage:
    manifest: dict[str, Any] = {}
    try:
        with engine.paths.image(entry.name).manifest.open("rb") as file:
            manifest = dict(json.loads(file.read(_LARGEST_MANIFEST)))
    except (OSError, ValueError, TypeError):
        pass  # it is listed all the same: somebody may want to remove it
    return CachedImage(
        id=entry.name,
        names=tuple(sorted(names.get(entry.name, ()))),
        source=sources.get(entry.name) or _source(manifest),
        digest=str(manifest.get("digest", "")),
        size=entry.size + sum(file.size for file in entry.shared),
        used_by=tuple(users.get(entry.name, ())),
        used_at=entry.used_at,
        pinned=entry.name in pins,
        manifest=manifest,
    )


def _source(manifest: Mapping[str, Any]) -> str:
    """What an image that no file names was made from, as it says itself."""
    match manifest:
        case {"source": {"ref": str(ref), **rest}}:
            return ref or str(rest.get("path", ""))
        case {"source": str(source)}:
            return source
        case {"source": dict(source)}:
            return " ".join(str(value) for value in source.values() if isinstance(value, str) and value)
        case {"inputs": {"suite": str(suite)}}:
            return f"Debian {suite}"
    return "unknown"
