"""Pull and start against prune, changing over at every line, with real files: no broken image, nothing needed is lost.

`BANGER_INTERLEAVINGS=1000` tries as many of each.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.drivers.cache import evict, probe
from reconciler.drivers.cache.evict import Candidate
from reconciler.lib import inuse
from reconciler.lib.inuse import in_use, mark_used
from reconciler.lib.once import once
from reconciler.lib.progress import Silent
from reconciler.model.retention import EntryKind
from tests.fakes.turns import Turns

INTERLEAVINGS = int(os.environ.get("BANGER_INTERLEAVINGS", "60"))
WATCHED = (evict.__file__, inuse.__file__, __file__)
SIZE = 20_000
IMAGE = "0" * 16


class Shared:
    """What the inventory is in the real thing: what is needed, under a lock that is held while something goes."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False
        self.roots: set[str] = set()

    @contextmanager
    def lock(self) -> Iterator[None]:
        while self._held:
            self._turns.give_way()
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def needed(self) -> Iterator[Callable[[str], str | None]]:
        with self.lock():
            known = set(self.roots)
            yield lambda name: "it is needed" if name in known else None


@pytest.fixture
def cooperative(monkeypatch: pytest.MonkeyPatch) -> Callable[[Turns], None]:
    """Has whoever waits for a kernel's lock let the others go on."""

    def install(turns: Turns) -> None:
        def flock(descriptor: int, operation: int) -> None:
            while True:
                try:
                    fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if operation & fcntl.LOCK_NB:
                        raise
                    turns.give_way()

        names = {name: getattr(fcntl, name) for name in ("LOCK_SH", "LOCK_EX", "LOCK_NB")}
        monkeypatch.setattr(inuse, "fcntl", SimpleNamespace(flock=flock, **names))
        # Whoever waits for another's making of the same thing polls.
        monkeypatch.setattr("reconciler.lib.once.time", SimpleNamespace(sleep=lambda seconds: turns.give_way()))

    return install


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def make_image(folder: Path, scratch: Path) -> None:
    (folder / "rootfs.squashfs").write_bytes(content(7))
    (folder / "image.json").write_text("{}")


def check_image(folder: Path) -> None:
    assert (folder / "rootfs.squashfs").read_bytes() == content(7)
    assert (folder / "image.json").read_text() == "{}"


def all_of(kind: EntryKind, folder: Path) -> list[Candidate]:
    return [(entry.name, entry.used_at) for entry in probe.entries(kind, folder)]


@pytest.mark.parametrize("shard", range(4))
def test_start_against_prune(tmp_path: Path, shard: int, cooperative: Callable[[Turns], None]) -> None:
    """Whoever has written down that it needs an image, and has it made if it is not there, can use it."""
    changes = set()
    for seed in range(shard, INTERLEAVINGS, 4):
        turns = Turns(seed, WATCHED)
        cooperative(turns)
        shared, images = Shared(turns), tmp_path / f"{seed}"
        image = images / IMAGE
        image.mkdir(parents=True)
        make_image(image, image)
        mark_used(image, at=1000.0)

        def start(shared: Shared = shared, image: Path = image) -> None:
            with shared.lock():
                shared.roots.add(IMAGE)
            once(image, Silent(), make_image)
            with in_use(image):
                check_image(image)

        def prune(shared: Shared = shared, images: Path = images) -> None:
            evict.evict(images, all_of(EntryKind.IMAGE, images), shared.needed, files=False)

        turns.run(start, prune, prune)
        check_image(image)
        changes.add(turns.changes)
    assert len(changes) > 3, "the turns do not change"


@pytest.mark.parametrize("shard", range(4))
@pytest.mark.parametrize("emptied", [False, True])
def test_pull_against_prune(tmp_path: Path, shard: int, cooperative: Callable[[Turns], None], emptied: bool) -> None:
    """A pull links the blobs that it finds, fetches the others, makes an image of all, and adds what is missing."""
    for seed in range(shard, INTERLEAVINGS, 4):
        turns = Turns(seed, WATCHED)
        cooperative(turns)
        shared, root, chance = Shared(turns), tmp_path / f"{seed}", random.Random(seed)
        blobs, image = root / "oci/sha256", root / "images" / IMAGE
        blobs.mkdir(parents=True)
        names = [f"{number:064x}" for number in range(4)]
        for number, name in enumerate(names):
            if chance.random() < 0.7:
                (blobs / name).write_bytes(content(number))
                os.utime(blobs / name, (1000.0, 1000.0))

        def pull(root: Path = root, blobs: Path = blobs, names: list[str] = names, image: Path = image) -> None:
            own = root / f"scratch-{threading.get_ident()}"
            own.mkdir()
            for name in names:
                try:
                    os.link(blobs / name, own / name)
                    os.utime(own / name)
                except FileNotFoundError:
                    continue
            for number, name in enumerate(names):
                if not (own / name).exists():
                    (own / name).write_bytes(content(number))
            assert [(own / name).read_bytes() for name in names] == [content(number) for number in range(4)]
            once(image, Silent(), make_image)
            for name in names:
                try:
                    os.link(own / name, blobs / name)
                except (FileExistsError, FileNotFoundError):
                    continue

        def prune(shared: Shared = shared, blobs: Path = blobs) -> None:
            if emptied:
                evict.empty(blobs, blobs.parent)
            else:
                evict.evict(blobs, all_of(EntryKind.BLOB, blobs), shared.needed, files=True)

        turns.run(pull, prune, pull)
        check_image(image)
        assert all(path.read_bytes() == content(names.index(path.name)) for path in blobs.iterdir())
