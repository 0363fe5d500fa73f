"""On a small file system of its own: what a plan says comes free is what df sees come free, and a full one is survived."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions
from reconciler.daemon.engine import Engine
from reconciler.daemon.local import LocalService
from reconciler.lib.clock import SystemClock
from reconciler.lib.inuse import mark_used
from reconciler.lib.paths import Paths
from reconciler.lib.units import MIB
from reconciler.model.desired import DesiredState
from reconciler.model.retention import DAY, CachePolicy, EntryKind, Limits, Rule, Safety
from tests.fakes.host import Recorder

pytestmark = pytest.mark.host

RULES = tuple(Rule(kind=kind, unused_for=DAY) for kind in (EntryKind.BLOB, EntryKind.IMAGE))
POLICY = CachePolicy(rules=RULES, safety=Safety(min_age=0.0, max_delete=1.0))
WANTED = DesiredState(environment="demo", cache=POLICY)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 64 MiB."""
    disk, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    done = subprocess.run(["mount", "-o", "loop", disk, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def service(mounted: Path, tmp_path: Path) -> Iterator[LocalService]:
    """Its cache lies there, and nothing else."""
    paths = Paths.discover({"BANGER_HOME": str(tmp_path / "home")})
    made = LocalService(Engine(dataclasses.replace(paths, cache=mounted / "cache"), SystemClock()))
    with made._engine.writing(lambda message: None):
        pass
    yield made
    made.close()


def used(place: Path) -> int:
    """What df(1) calls used."""
    os.sync()
    status = os.statvfs(place)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def fill_up(place: Path) -> None:
    """To the last block."""
    with (place / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


def blob(paths: Paths, number: int, size: int) -> Path:
    file = paths.blobs / f"{number:064x}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.urandom(size))
    os.utime(file, (1.0, 1.0))
    return file


def image(paths: Paths, number: int, size: int) -> Path:
    folder = paths.image(f"{number:016x}").root
    folder.mkdir(parents=True)
    (folder / "rootfs.squashfs").write_bytes(os.urandom(size))
    (folder / "image.json").write_text("{}")
    return folder


def test_df_sees_what_the_plan_said(service: LocalService, mounted: Path) -> None:
    paths, chance = service._engine.paths, random.Random(1)
    images = [image(paths, number, chance.randrange(2 * MIB)) for number in range(6)]
    for other in images[1:3]:
        os.link(images[0] / "rootfs.squashfs", other / "base")
    outside = mounted / "outside"
    os.link(images[4] / "rootfs.squashfs", outside)  # of which nothing comes free
    with (images[5] / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    for number in range(40):
        blob(paths, number, chance.randrange(300_000))
    for folder in images:
        mark_used(folder, at=time.time() - 2 * DAY)
    before = used(mounted)
    said = sum(v.frees for v in service.cache(WANTED).verdicts)
    result = service.prune_cache(WANTED, ApplyOptions(), Recorder(), lambda plan: True)
    assert not result.failed and list(paths.images.iterdir()) == []
    freed = before - used(mounted)
    assert said > 5 * MIB
    assert abs(freed - said) <= 0.01 * said, (freed, said)
    print(f"the plan said {said} bytes, df saw {freed}")


def test_a_full_file_system_is_pruned_too_and_one_that_is_full_of_what_is_needed_is_left(
    service: LocalService, mounted: Path
) -> None:
    paths = service._engine.paths
    needed, spare = image(paths, 1, 4 * MIB), image(paths, 2, 4 * MIB)
    mark_used(needed, spare, at=time.time() - 2 * DAY)
    service._engine.retention().pin(EntryKind.IMAGE, needed.name, 1.0)
    fill_up(mounted)
    tight = dataclasses.replace(WANTED, cache=dataclasses.replace(POLICY, limits=Limits(min_free=60 * MIB)))
    plan = service.plan(tight, ApplyOptions())
    assert len(plan.steps) == 1 and plan.held[0].advisory
    result = service.prune_cache(tight, ApplyOptions(), Recorder(), lambda plan: True)
    assert not result.failed and needed.is_dir() and not spare.exists()
    left = service.plan(tight, ApplyOptions())
    assert left.steps == () and [held.advisory for held in left.held] == [True]


def test_blobs_can_be_emptied_on_a_disk_without_a_free_block(service: LocalService, mounted: Path) -> None:
    for number in range(20):
        blob(service._engine.paths, number, 100_000)
    fill_up(mounted)
    assert service.clear_blobs(False).blobs == 20
    assert list(service._engine.paths.blobs.iterdir()) == []
    assert os.statvfs(mounted).f_bfree * 4096 > MIB
