"""Entries go whole, or stay whole: used ones, needed ones, and whatever the moment of a kill."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.drivers.cache import evict, probe
from reconciler.drivers.cache.evict import Candidate, Needed
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.inuse import in_use, last_use, mark_used
from reconciler.model.retention import EntryKind
from tests.fakes.killing import run_killed_at


def needs(*names: str) -> Needed:
    @contextmanager
    def needed() -> Iterator[Callable[[str], str | None]]:
        yield lambda name: "it is needed" if name in names else None

    return needed


def image(folder: Path, name: str, size: int = 5000) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    (made / "rootfs.squashfs").write_bytes(b"x" * size)
    (made / "image.json").write_text("{}")
    mark_used(made, at=1000.0)
    return made


def blob(folder: Path, number: int, size: int = 5000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{number:064x}"
    made.write_bytes(b"x" * size)
    os.utime(made, (1000.0, 900.0))
    return made


def candidates(kind: EntryKind, folder: Path) -> list[Candidate]:
    return [(entry.name, entry.used_at) for entry in probe.entries(kind, folder)]


def evict_all(kind: EntryKind, folder: Path, needed: Needed) -> evict.Gone:
    return evict.evict(folder, candidates(kind, folder), needed, files=kind is EntryKind.BLOB)


@pytest.mark.parametrize("kind", [EntryKind.IMAGE, EntryKind.BLOB])
def test_what_is_needed_or_was_used_since_stays(tmp_path: Path, kind: EntryKind) -> None:
    make = image if kind is EntryKind.IMAGE else blob
    paths = [make(tmp_path, f"{n}" if kind is EntryKind.IMAGE else n) for n in range(4)]  # type: ignore[arg-type]
    chosen = candidates(kind, tmp_path)
    mark_used(paths[1])
    gone = evict.evict(tmp_path, chosen, needs(paths[0].name), files=kind is EntryKind.BLOB)
    assert [path.exists() for path in paths] == [True, True, False, False]
    assert sorted(gone.names) == [paths[2].name, paths[3].name]
    assert gone.spared == {paths[0].name: "it is needed", paths[1].name: "it was used meanwhile"}
    assert not (tmp_path / STAGING).exists()


def test_an_entry_that_somebody_works_with_stays_until_that_ends(tmp_path: Path) -> None:
    made = image(tmp_path, "a")
    with in_use(made):
        assert evict_all(EntryKind.IMAGE, tmp_path, needs()).spared == {"a": "somebody works with it"}
    assert made.is_dir()
    assert evict_all(EntryKind.IMAGE, tmp_path, needs()).names == ["a"]


def test_what_is_gone_already_is_no_failure(tmp_path: Path) -> None:
    gone = evict.evict(tmp_path, [("x", 1.0)], needs(), files=False)
    assert not gone.names and not gone.spared


def test_whoever_comes_while_an_entry_goes_has_all_of_it_or_is_told_that_it_is_not_there(tmp_path: Path) -> None:
    """The user begins between the look at what is needed and the lock; the eviction between lock and rename waits for nobody."""
    made = image(tmp_path, "a")
    began, seen = threading.Event(), []

    def use() -> None:
        began.set()
        try:
            with in_use(made):
                seen.append((made / "rootfs.squashfs").stat().st_size)
        except FileNotFoundError:
            seen.append(0)

    thread = threading.Thread(target=use)

    @contextmanager
    def needed() -> Iterator[Callable[[str], str | None]]:
        thread.start()
        began.wait()
        yield lambda name: None

    evict.evict(tmp_path, candidates(EntryKind.IMAGE, tmp_path), needed, files=False)
    thread.join()
    assert seen in ([0], [5000])


@pytest.mark.parametrize("kind", [EntryKind.IMAGE, EntryKind.BLOB])
def test_killed_at_any_change_it_is_clean_after_one_more_pass(tmp_path: Path, kind: EntryKind) -> None:
    for number in range(200):
        root = tmp_path / f"{number}"
        kept, other = (
            (image(root, "a"), image(root, "b")) if kind is EntryKind.IMAGE else (blob(root, 1), blob(root, 2))
        )
        killed = run_killed_at(number, lambda: evict_all(kind, root, needs(kept.name)))  # noqa: B023
        if other.exists() and other.is_dir():
            assert sorted(path.name for path in other.iterdir()) == ["image.json", "rootfs.squashfs"]
        for corpse in corpses(root):
            evict.remove_tree(corpse)
        evict_all(kind, root, needs(kept.name))
        assert kept.exists() and not other.exists()
        assert [path.name for path in root.iterdir() if path.name != STAGING] == [kept.name]
        assert not list((root / STAGING).glob("*"))
        if not killed:
            break
    else:
        pytest.fail("it never came to its end")


def test_without_room_for_a_folder_entries_go_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(parent: Path) -> None:
        raise OSError(28, "No space left on device")

    images, oci = tmp_path / "images", tmp_path / "oci"
    image(images, "a")
    image(images, ".b.evicted")
    blob(oci / "sha256", 1)
    monkeypatch.setattr(evict, "staging", full)
    assert evict_all(EntryKind.IMAGE, images, needs()).names == ["a"]
    evict.empty(oci / "sha256", oci)
    assert list(images.iterdir()) == [] and list(oci.rglob("*")) == [oci / "sha256"]


def test_emptying_leaves_an_empty_folder_of_the_same_mode(tmp_path: Path) -> None:
    folder = tmp_path / "oci" / "sha256"
    for number in range(3):
        blob(folder, number)
    folder.chmod(0o750)
    evict.empty(folder, tmp_path / "oci")
    assert list(folder.iterdir()) == [] and folder.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in (tmp_path / "oci").iterdir()] == ["sha256"]


def test_a_use_moves_the_time_of_use_and_not_that_of_making(tmp_path: Path) -> None:
    made, file = image(tmp_path, "a"), blob(tmp_path / "blobs", 1)
    before = file.stat().st_mtime
    for path in (made, file):
        assert last_use(path.stat()) == 1000.0
        with in_use(path):
            pass
        assert last_use(path.stat()) > 1e9
    assert file.stat().st_mtime == before


def test_sizes_are_what_is_allocated_and_hard_links_count_once(tmp_path: Path) -> None:
    first, second = image(tmp_path, "a", size=1 << 20), image(tmp_path, "b", size=0)
    with (first / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    os.link(first / "rootfs.squashfs", second / "same")
    os.link(second / "image.json", second / "twice")
    found = {entry.name: entry for entry in probe.entries(EntryKind.IMAGE, tmp_path)}
    allocated = (first / "rootfs.squashfs").stat().st_blocks * 512
    for entry in found.values():
        (shared,) = entry.shared
        assert (shared.size, shared.links, shared.here) == (allocated, 2, 1)
    du = sum(p.lstat().st_blocks * 512 for p in {q.lstat().st_ino: q for q in tmp_path.rglob("*")}.values())
    assert probe.used_bytes(found.values()) == du


def test_a_manifest_leads_to_its_layers_and_an_index_to_its_manifests(tmp_path: Path) -> None:
    layer, manifest, index, other = (f"{n:064x}" for n in range(4))
    (tmp_path / layer).write_bytes(b"{ no manifest sha256:" + other.encode())
    (tmp_path / manifest).write_text(f'{{"layers": [{{"digest": "sha256:{layer}"}}]}}')
    (tmp_path / index).write_text(f'{{"manifests": [{{"digest": "sha256:{manifest}"}}]}}')
    assert probe.reachable([index], tmp_path) == {index, manifest, layer}
