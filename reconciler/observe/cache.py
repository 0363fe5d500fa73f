"""The cache and the trash: what is there, and what of it is needed.

What is needed is everything that some environment asks for, that some VM was made of, started with or could be brought
back from the trash with, that somebody pinned, and that a lock file names. What is in use this moment is not seen here:
it holds a lock (`lib.inuse`), which eviction respects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from reconciler.drivers.cache import probe, trash
from reconciler.lib.bulk import no_collection
from reconciler.lib.paths import Paths
from reconciler.model.artifacts import GUEST_TOOLS
from reconciler.model.desired import DesiredState
from reconciler.model.observed import Unknown
from reconciler.model.retention import Entry, EntryKind, ObservedCache
from reconciler.store.inventory import EnvironmentRow, Inventory, VmRow
from reconciler.store.retention import RetentionState

_LABELLED = re.compile(r"\(([0-9a-f]{16})\)")
LOCK_FILE = "banger.lock"

Pinned = Callable[[DesiredState], DesiredState]


def observe_cache(
    inventory: Inventory, retention: RetentionState, paths: Paths, now: float, pinned: Pinned
) -> ObservedCache | Unknown:
    """Everything at once; Unknown if a part of it cannot be read, since then nothing is known to be unneeded (I4)."""
    try:
        with no_collection():
            found = [entry for kind, folder in probe.places(paths).items() for entry in probe.entries(kind, folder)]
        # Now and not before: what became needed while the folders were read is needed.
        roots = find_roots(inventory, retention, paths, pinned)
        manifests = dict(trash.entries(paths))
        entries = [_owned(entry, manifests) if entry.kind is EntryKind.TRASH else entry for entry in found]
        for root in (paths.cache, paths.state):
            staged = list(probe.staged(root))
            entries += staged
            roots |= {entry.key: "it is being made" for entry in staged}
        cached = [entry for entry in entries if entry.kind is not EntryKind.TRASH]
        free, total = probe.room(paths.cache)
    except OSError as problem:
        where = f": {problem.filename}" if problem.filename else ""
        return Unknown(f"{problem.strerror}{where}")
    return ObservedCache(
        entries=tuple(entries),
        roots=roots,
        used=probe.used_bytes(cached),
        free=free,
        total=total,
        spent=retention.spent(now),
        now=now,
    )


def find_roots(inventory: Inventory, retention: RetentionState, paths: Paths, pinned: Pinned) -> dict[str, str]:
    """Key of an entry → what needs it. BangerError if the inventory cannot be read, OSError if a file cannot.

    Parameters
    ----------
    pinned: gives a desired state with the tags of its images resolved, as far as is remembered.
    """
    roots = _Roots(paths)
    rows = inventory.vms()
    for row in rows:
        roots.made_of(_identities(row), f"vm {row.environment}/{row.name} is made of it")
    for name in inventory.environment_names():
        environment = inventory.environment(name)
        if environment is not None:
            roots.desired(environment, pinned(environment.desired))
    trashed = trash.entries(paths)
    there = {row.id: f"{row.environment}/{row.name}" for row in rows}
    for entry, manifest in trashed:
        if manifest.id in there:
            # On its way into the trash, or back.
            roots.need(EntryKind.TRASH, entry, f"vm {there[manifest.id]} is still, or again, what it holds")
        if manifest.vm is not None:
            made_of = (manifest.vm.image_id, manifest.vm.kernel_id)
            roots.made_of(made_of, f"trash entry {entry} is made of it")
    for pin in retention.pins():
        roots.need(pin.kind, pin.name, "it is pinned")
        if pin.kind is EntryKind.BLOB:
            roots.digests([pin.name], "it belongs to what is pinned")
    roots.unreadable({entry for entry, _ in trashed})
    if rows:
        roots.need(EntryKind.TOOLS, GUEST_TOOLS.id, "vms are started with it")
    return roots.found


class _Roots:
    """What needs which entry; who is first to need it is told."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.found: dict[str, str] = {}

    def need(self, kind: EntryKind, name: str, why: str) -> None:
        self.found.setdefault(f"{kind.value}/{name}", why)

    def made_of(self, identities: Iterable[str], why: str) -> None:
        for identity in identities:
            self.need(EntryKind.IMAGE, identity, why)
            self.need(EntryKind.KERNEL, identity, why)

    def desired(self, row: EnvironmentRow, desired: DesiredState) -> None:
        """What an environment asks for, and what the lock file beside its file names."""
        for image in desired.images.values():
            self.need(EntryKind.IMAGE, image.id, f"environment {row.name} has image {image.name}")
        for kernel in desired.kernels.values():
            self.need(EntryKind.KERNEL, kernel.id, f"environment {row.name} has kernel {kernel.name}")
        for vm in desired.vms.values():
            self.made_of((vm.image_id, vm.kernel_id), f"environment {row.name} has vm {vm.name}")
        lock = Path(row.source).parent / LOCK_FILE
        if lock.is_file():
            self.digests(probe.digests_in(lock), f"{lock} names it")

    def digests(self, digests: Iterable[str], why: str) -> None:
        for blob in probe.reachable(digests, self._paths.blobs):
            self.need(EntryKind.BLOB, blob, why)

    def unreadable(self, readable: Collection[str]) -> None:
        """A trash entry that does not say what it is made of may be made of anything."""
        unknown = sorted(set(probe.names(self._paths.trash)) - set(readable))
        if unknown:
            everything = {*probe.names(self._paths.images), *probe.names(self._paths.kernels)}
            self.made_of(everything, f"trash entry {unknown[0]} cannot be read, and may be made of it")


def _identities(row: VmRow) -> Iterable[str]:
    yield row.spec.image_id
    yield row.spec.kernel_id
    for facts in (row.created, row.booted):
        for value in facts.values():
            yield from _LABELLED.findall(value)


def _owned(entry: Entry, manifests: Mapping[str, trash.Manifest]) -> Entry:
    manifest = manifests.get(entry.name)
    if manifest is None:
        return entry
    protected = manifest.vm is not None and manifest.vm.protect
    return entry._replace(environment=manifest.environment, protected=protected)
