"""Retention with real files, a real database and the service's own operations: nothing that is needed ever goes."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions
from reconciler.drivers.cache import probe
from reconciler.lib.errors import BangerError
from reconciler.lib.inuse import in_use, mark_used
from reconciler.model.actions import EvictEntries
from reconciler.model.desired import DesiredState
from reconciler.model.outcome import Result
from reconciler.model.plan import Plan
from reconciler.model.retention import DAY, CachePolicy, EntryKind, Limits, Rule, Safety
from reconciler.model.status import State
from tests.fakes.host import Host, desired, image, vm

AT_ONCE = tuple(Rule(kind=kind, unused_for=60.0) for kind in EntryKind if kind.ruled)
FREELY = CachePolicy(rules=AT_ONCE, safety=Safety(min_age=0.0, max_delete=1.0))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "home", monkeypatch)
    made.clock.time = time.time()
    return made


def pruned(wanted: DesiredState, policy: CachePolicy | None = FREELY) -> DesiredState:
    return dataclasses.replace(wanted, cache=policy)


def stray_image(host: Host, name: str, days: float = 1) -> Path:
    folder = host.paths.image(name).root
    folder.mkdir(parents=True)
    (folder / "rootfs.squashfs").write_bytes(b"x" * 10_000)
    (folder / "image.json").write_text("{}")
    mark_used(folder, at=host.clock.time - days * DAY)
    return folder


def stray_blob(host: Host, number: int, size: int = 5000, days: float = 1) -> Path:
    file = host.paths.blobs / f"{number:064x}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"b" * size)
    long_ago = host.clock.time - days * DAY
    os.utime(file, (long_ago, long_ago))
    return file


def age_everything(host: Host) -> None:
    """As if nothing had been touched for a year."""
    ago = host.clock.time - 365 * DAY
    for root in (host.paths.cache, host.paths.trash):
        for path in sorted(root.rglob("*"), reverse=True):
            os.utime(path, (ago, ago))


def test_an_apply_evicts_what_nobody_needs_and_a_second_one_nothing(host: Host) -> None:
    wanted = pruned(desired(vm("dev")))
    host.apply(wanted)
    stray = stray_image(host, "0" * 16)
    result = host.apply(wanted)
    assert [type(step.action) for step in result.plan.steps] == [EvictEntries]
    assert not stray.exists() and not result.failed
    assert host.plan(wanted).empty
    before = host.files()
    host.apply(wanted)
    assert host.files() == before
    assert [e.reason for e in host.service.events(None, None, False)][-1] == "Evicted"


@pytest.mark.parametrize("policy", [None, CachePolicy()])
def test_without_a_policy_or_with_an_empty_one_nothing_goes(host: Host, policy: CachePolicy | None) -> None:
    wanted = pruned(desired(vm("dev")), policy)
    stray, blob = stray_image(host, "0" * 16, days=9999), stray_blob(host, 1, days=9999)
    host.apply(wanted)
    assert host.apply(wanted).plan.empty
    assert host.service.prune_cache(wanted, ApplyOptions(), host.reporter, lambda plan: True).plan.empty
    assert stray.exists() and blob.exists()


def test_what_vms_of_any_environment_are_made_of_stays_also_from_the_trash_and_with_a_pin(host: Host) -> None:
    other = image("other", "git")
    third = image("third", "curl")
    host.apply(desired(vm("b", of=other), images=(other,), name="other"))
    host.apply(desired(vm("c", of=third), images=(third,), name="third"))
    host.apply(DesiredState(environment="third"))  # its VM is in the trash now
    pinned = stray_image(host, "1" * 16)
    host.service._engine.retention().pin(EntryKind.IMAGE, pinned.name, 1.0)
    age_everything(host)
    stray = stray_image(host, "0" * 16)
    host.apply(pruned(desired(vm("a"))))
    age_everything(host)
    host.apply(pruned(desired(vm("a"))))
    for identity in (other.id, third.id, image().id, pinned.name):
        assert host.paths.image(identity).root.is_dir(), identity
    assert not stray.exists()
    view = host.service.cache(pruned(desired(vm("a"))))
    told = {v.entry.name: v.reason for v in view.verdicts}
    assert told[other.id] == "vm other/b is made of it" and "trash entry third.c." in told[third.id]
    assert told[pinned.name] == "it is pinned" and all(v.reason and v.rule for v in view.verdicts)


def test_a_trash_entry_goes_with_its_time_and_then_what_it_was_made_of(host: Host) -> None:
    rules = (Rule(kind=EntryKind.TRASH, unused_for=7 * DAY), Rule(kind=EntryKind.IMAGE, unused_for=7 * DAY))
    policy = CachePolicy(rules=rules, safety=Safety(max_delete=1.0), limits=Limits(max_used=0))
    host.apply(desired(vm("dev"), images=(image(), image("other", "git"))))
    empty = pruned(DesiredState(environment="env"), policy)
    host.apply(empty)
    (entry,) = host.service.trash()
    host.clock.time += 6 * DAY
    host.apply(empty)
    assert [e.entry for e in host.service.trash()] == [entry.entry] and host.paths.image(image().id).root.is_dir()
    host.clock.time += 2 * DAY
    plan = host.plan(empty)
    assert plan.disruptive == plan.steps, "the user is asked before"
    host.apply(empty)
    assert host.service.trash() == [] and not host.paths.image(image().id).root.exists()
    assert not list(host.paths.trash.glob("*"))


def test_the_policy_of_one_environment_leaves_the_trash_of_others(host: Host) -> None:
    host.apply(desired(vm("a"), name="other"))
    host.apply(DesiredState(environment="other"))
    age_everything(host)
    host.apply(pruned(desired(vm("dev"))))
    host.apply(pruned(desired(vm("dev"))))
    assert len(host.service.trash()) == 1


def test_a_trash_entry_that_cannot_be_read_keeps_every_image(host: Host) -> None:
    wanted = pruned(desired(vm("dev")))
    host.apply(wanted)
    stray = stray_image(host, "0" * 16)
    (host.paths.trash / "env.lost.1").mkdir(parents=True)
    assert host.apply(wanted).plan.empty and stray.exists()
    (host.paths.trash / "env.lost.1").rmdir()
    host.apply(wanted)
    assert not stray.exists()


def test_an_image_that_becomes_needed_or_is_used_after_the_plan_was_made_stays(host: Host) -> None:
    wanted = pruned(desired(vm("dev")))
    host.apply(wanted)
    late, used, locked, stray = (stray_image(host, f"{n:016x}") for n in range(4))
    # What an apply of another environment does between the plan and its execution.
    engine = host.service._engine

    def meanwhile(plan: Plan) -> bool:
        engine.retention().pin(EntryKind.IMAGE, late.name, 1.0)
        mark_used(used)
        return True

    with in_use(locked):
        os.utime(locked, (host.clock.time - DAY,) * 2)
        result = host.service.prune_cache(wanted, ApplyOptions(), host.reporter, meanwhile)
    assert [o.result for o in result.outcomes] == [Result.DONE]
    assert [path.exists() for path in (late, used, locked, stray)] == [True, True, True, False]
    assert engine.retention().spent(host.clock.time)["image"] == 1


def test_what_cannot_be_removed_is_an_error_and_the_rest_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = pruned(desired(vm("dev")))
    host.apply(wanted)
    stray_image(host, "0" * 16)

    def refuse(source: Path, destination: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("reconciler.drivers.cache.evict.move", refuse)
    result = host.apply(wanted)
    (failed,) = result.failed
    assert failed.error is not None and "cannot remove from" in failed.error.cause
    statuses = {f"{s.kind}/{s.name}": s for s in host.service.status("env")}
    assert statuses["cache/cache"].state is State.FAILED and statuses["vm/dev"].state is not State.FAILED


def test_clearing_the_blobs_is_counted_and_leaves_an_empty_folder(host: Host) -> None:
    assert host.service.clear_blobs(False).blobs == 0 and not host.paths.oci.exists()
    for number in range(3):
        stray_blob(host, number)
    (host.paths.blobs / "no digest").write_text("kept out of the count")
    would = host.service.clear_blobs(True)
    assert (would.blobs, would.size, would.folder) == (3, 3 * 8192, host.paths.oci)
    assert host.service.clear_blobs(False) == would
    assert list(host.paths.blobs.iterdir()) == [] and [p.name for p in host.paths.oci.iterdir()] == ["blobs"]
    assert host.service.clear_blobs(False).blobs == 0
    shutil.rmtree(host.paths.blobs)
    host.paths.blobs.symlink_to(host.paths.state)
    with pytest.raises(BangerError, match="symbolic link"):
        host.service.clear_blobs(False)


def test_a_lock_file_keeps_the_blobs_that_it_leads_to(host: Host, tmp_path: Path) -> None:
    wanted = pruned(desired(vm("dev")))
    host.apply(wanted)
    layer, stray = stray_blob(host, 1), stray_blob(host, 2)
    manifest = stray_blob(host, 3)
    manifest.write_text(f'{{"layers": [{{"digest": "sha256:{layer.name}"}}]}}')
    os.utime(manifest, (1.0, 1.0))
    row = host.service._engine.inventory().environment("env")
    assert row is not None
    lock = tmp_path / "banger.lock"
    lock.write_text(f"alpine: sha256:{manifest.name}\n")
    host.service._engine.inventory().put_environment(dataclasses.replace(row, source=str(tmp_path / "banger.yaml")))
    host.service.prune_cache(wanted, ApplyOptions(), host.reporter, lambda plan: True)
    assert [path.exists() for path in (layer, stray, manifest)] == [True, False, True]


def test_what_is_planned_is_what_is_done_and_what_comes_free_is_what_was_said(host: Host) -> None:
    """On a thousand random caches; some of their files are hard links of others."""
    chance = random.Random(7)
    host.apply(desired(vm("dev")))
    folders = probe.places(host.paths)
    for state in range(int(os.environ.get("BANGER_STATES", "60"))):
        for kind in (EntryKind.BLOB, EntryKind.IMAGE):
            shutil.rmtree(folders[kind], ignore_errors=True)
        images = [stray_image(host, f"{n:016x}", days=chance.randrange(20)) for n in range(chance.randrange(6))]
        for one in images[1:]:
            if chance.random() < 0.4:
                os.link(images[0] / "rootfs.squashfs", one / "layer")
                mark_used(one, at=host.clock.time - chance.randrange(20) * DAY)
        for number in range(chance.randrange(8)):
            stray_blob(host, number, size=chance.randrange(60_000), days=chance.randrange(20))
        rules = tuple(
            Rule(kind=kind, newest=chance.randrange(2), unused_for=chance.choice([None, 5 * DAY, 15 * DAY]))
            for kind in (EntryKind.BLOB, EntryKind.IMAGE)
        )
        limits = Limits(max_used=chance.choice([None, 0, 50_000, 200_000]))
        policy = CachePolicy(rules=rules, limits=limits, safety=Safety(max_delete=chance.choice([0.5, 1.0])))
        wanted = pruned(desired(vm("dev")), policy)
        host.clock.time += 2 * DAY
        before, plan = host.service.cache(wanted), host.plan(wanted)
        result = host.service.prune_cache(wanted, ApplyOptions(), host.reporter, lambda plan: True)
        after = host.service.cache(wanted)
        chosen = {v.entry.key for v in before.verdicts if v.evict}
        assert [s for s in plan.steps if isinstance(s.action, EvictEntries)] == list(result.plan.steps)
        assert {v.entry.key for v in before.verdicts} - {v.entry.key for v in after.verdicts} == chosen, state
        assert before.used - after.used == sum(v.frees for v in before.verdicts), state
        assert not any(v.evict for v in after.verdicts)
