"""The cache: what a killed process left is removed, and so is what its policy lets go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reconciler.drivers.cache import evict, probe
from reconciler.execute.tools import Tools
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.errors import BangerError
from reconciler.lib.once import remove_tree
from reconciler.lib.progress import Progress
from reconciler.lib.units import human_size
from reconciler.model.actions import EvictEntries, SweepStaging
from reconciler.model.retention import EntryKind, Eviction
from reconciler.store.retention import RetentionState


def sweep(action: SweepStaging, tools: Tools, progress: Progress) -> None:
    """Removes one staging folder, if it still is nobody's. Anything that is not a staging folder is refused."""
    folder = Path(action.name)
    parent = folder.parent.parent
    ours = any(folder.is_relative_to(root) for root in (tools.paths.state, tools.paths.cache))
    if folder.parent.name != STAGING or not ours:
        raise BangerError(f"{folder} is not a staging folder of this state directory")
    if folder in corpses(parent):
        remove_tree(folder)
        try:
            folder.parent.rmdir()
        except OSError:
            pass  # others work there


def record_evictions(action: EvictEntries, tools: Tools) -> None:
    """Counts them before they go: killed in between, too many are taken for gone, never too few."""
    state, _ = _opened(tools)
    for kind, count in Counter(entry.kind for entry in action.entries).items():
        state.spend(kind, count, tools.clock.now())


def evict_entries(action: EvictEntries, tools: Tools, progress: Progress) -> None:
    """Evicts what still may go. What became needed or was used since the plan was made stays, and that is no failure."""
    state, roots = _opened(tools)
    places = probe.places(tools.paths)
    by_kind: dict[EntryKind, list[Eviction]] = {}
    for entry in action.entries:
        by_kind.setdefault(entry.kind, []).append(entry)
    for kind, chosen in by_kind.items():
        _check(kind, chosen)
    freed = done = 0
    for kind, chosen in by_kind.items():
        progress.update(done / len(action.entries), f"evicting {len(chosen)} {kind.value}(s)")
        gone = evict.evict(
            places[kind],
            ((entry.name, entry.used_at) for entry in chosen),
            _needed(kind, tools, roots),
            files=kind is EntryKind.BLOB,
        )
        done += len(chosen)
        freed += gone.freed or _frees(chosen, set(gone.names))
        if gone.spared:
            state.spend(kind, -len(gone.spared), tools.clock.now())
            name, why = next(iter(gone.spared.items()))
            progress.update(done / len(action.entries), f"{len(gone.spared)} stay: {kind.value}/{name}: {why}")
    progress.update(1.0, f"freed {human_size(freed)}")


def _check(kind: EntryKind, chosen: Iterable[Eviction]) -> None:
    """A plan may come from a file: a name that leads out of its folder is nobody's entry."""
    ruled = kind.ruled
    for entry in chosen:
        name = entry.name
        if not ruled or not name or name[0] == "." or "/" in name or "\0" in name:
            raise BangerError(f"{entry.key} is no entry of the cache")


def _frees(chosen: Iterable[Eviction], gone: Collection[str]) -> int:
    return sum(entry.frees for entry in chosen if entry.name in gone)


def _opened(tools: Tools) -> tuple[RetentionState, Callable[[], Mapping[str, str]]]:
    if tools.retention is None or tools.roots is None:
        raise BangerError("what the cache holds is needed by whom is not known here, so nothing of it goes")
    return tools.retention, tools.roots


def _needed(kind: EntryKind, tools: Tools, roots: Callable[[], Mapping[str, str]]) -> evict.Needed:
    prefix = f"{kind.value}/"

    @contextmanager
    def needed() -> Iterator[Callable[[str], str | None]]:
        # Whatever needs an entry is written down before it is used: nobody can, until this ends.
        with tools.inventory.frozen():
            yield {key.removeprefix(prefix): why for key, why in roots().items() if key.startswith(prefix)}.get

    return needed
