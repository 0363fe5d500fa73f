"""A controller that is killed anywhere (I3, I11, I12): the next one ends where it would have, and nothing leaks.

Each scenario is killed before, between and after its changes of files, its commits, and its dealings with VMMs and the
root helper; then a fresh controller keeps the environment. BANGER_KILLS=all tries every point, else some of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from reconciler.daemon.engine import Engine
from reconciler.drivers.cache.trash import entries
from reconciler.lib import cancel
from reconciler.lib.atomic import STAGING
from reconciler.model.vm import RunState
from reconciler.store.inventory import VmRow
from tests.daemon.kill_scenarios import SCENARIOS, Scenario
from tests.fakes.killing import count_changes, run_killed_at
from tests.fakes.lasting import LastingHost
from tests.fakes.unthreaded import Unthreaded

ALL = os.environ.get("BANGER_KILLS") == "all"
KILLS = 12
"""At how many points each scenario is killed, if not at all of them, beside those around each dealing with the host."""

Made = dict[str, int]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[LastingHost]:
    # In memory where that is possible: a kill of the process loses nothing that was not synced.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="banger-kills-", dir=memory) as folder:
        yield LastingHost(Path(folder) / "home", monkeypatch)
    cancel.reset()


def keep(host: LastingHost, scenario: Scenario, *, ask: bool, after: bytes | None = None) -> Unthreaded:
    """A new controller process, until it comes to rest."""
    engine = Engine(host.paths, host.clock)
    host.clock.time += 1
    try:
        controller = Unthreaded(engine, host.clock)
        controller.keep(after or scenario.after, scenario.ask if ask else None)
    finally:
        engine.close()
    return controller


def prepare(host: LastingHost, scenario: Scenario) -> None:
    if scenario.before is not None:
        keep(host, scenario, ask=False, after=scenario.before)
    host.backend.may_start = partial(scenario.may_start, host)
    scenario.disturb(host)
    host.freeze()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_controller_that_was_killed_is_followed_by_one_that_ends_where_it_would_have(
    host: LastingHost, name: str, record_property: Callable[[str, object], None]
) -> None:
    scenario = SCENARIOS[name]
    prepare(host, scenario)
    pids, before = running(host), len(host.backend.starts)

    def act() -> None:
        keep(host, scenario, ask=True)

    host.thaw()
    there, effects = count_changes(act)
    record_property("points", there)
    tries = there if ALL else min(there, KILLS)
    numbers = sorted({*(number * there // tries for number in range(tries)), *effects, there})
    record_property("kills", len(numbers) - 1)
    for number in numbers:
        host.thaw()
        killed = run_killed_at(number, act, commits=True)
        # The threads of an operation may write a little more or less, so the last point of all may be missed or met.
        assert killed or number >= there - 2
        host.load()
        whole = artifacts(host)
        try:
            check(host, keep(host, scenario, ask=False))
            if scenario.ask is not None:
                check(host, keep(host, scenario, ask=True))
            assert whole.items() <= artifacts(host).items(), "made twice"
            check_end(host, scenario, pids)
            check_starts(scenario, host.backend.starts[before:])
        except BaseException as problem:
            problem.add_note(f"{name}, killed at point {number} of {there}")
            raise


def check(host: LastingHost, controller: Unthreaded) -> None:
    """What holds wherever a controller comes to rest."""
    plan = controller.last_plan("env")
    assert plan is None or plan.steps == (), controller.text.getvalue()
    assert controller.troubles("env") == {}
    assert host.backend.wrong == []
    rows = {name: row for name, row in inventory(host).items() if not restoring(host, row)}
    assert plan is not None or rows == {}
    on = {row.id: row for row in rows.values() if row.spec.state is RunState.RUNNING and row.halted is None}
    assert host.backend.table.keys() == on.keys(), "a VMM too many, or one too few"
    bridged = {row.name for row in on.values() if row.spec.bridged}
    assert {key[2] for key in host.helper.taps} == bridged, "a tap too many, or one too few"
    engine = Engine(host.paths, host.clock)
    try:
        networks = engine.inventory().networks("env")
    finally:
        engine.close()
    assert {key[2] for key in host.helper.bridges} == networks.keys(), "a bridge too many, or one too few"
    assert {key[2] for key in host.helper.rules} == networks.keys(), "rules too many, or too few"
    for (_, _, network), rules in host.helper.rules.items():
        everybody = inventory(host).values()  # also one whose restoration was cut off
        known = {(row.name, str(row.address)) for row in everybody if row.spec.network == network}
        assert rules.intact and set(rules.fields["vms"]) == known, "rules that do not know who is there"
    bridges = {bridge.name for bridge in host.helper.bridges.values()}
    assert all(tap.master in bridges and host.backend.holds(tap.name) for tap in host.helper.taps.values())
    assert all(row.booted for row in on.values()), "a start that was not recorded"
    addresses = [row.address for row in rows.values() if row.address is not None]
    assert len(set(addresses)) == len(addresses)
    assert all(row.address in networks[row.spec.network].cidr for row in rows.values() if row.spec.bridged)
    ports = [port for row in rows.values() for port in row.forwards.values()]
    assert len(set(ports)) == len(ports)
    check_files(host, rows)


def restoring(host: LastingHost, row: VmRow) -> bool:
    """Whether a VM is recorded and still in the trash: its restoration was cut off, and whoever asks again completes it."""
    trashed = host.paths.trash_entry(f"env.{row.name}.{row.id}") / "vm"
    assert not (trashed.exists() and host.paths.vm("env", row.name).root.exists()), "a VM at two places"
    return trashed.exists()


def check_files(host: LastingHost, rows: dict[str, VmRow]) -> None:
    home = host.paths.state.parent
    assert [path for base in home.rglob(STAGING) for path in base.iterdir()] == [], "staging folders"
    assert names(host.paths.vms / "env") == rows.keys(), "a folder too many, or one too few"
    assert names(host.paths.runtime / "vms" / "env") <= rows.keys()
    for name in rows:
        place = host.paths.vm("env", name)
        assert all(path.read_text() for path in (place.overlay, place.host_key, place.known_hosts))
    found = entries(host.paths)
    assert names(host.paths.trash) == {name for name, _ in found}, "half an entry"
    texts = [path.read_text() for path in host.paths.state.rglob("*.ext4")]
    assert host.backend.disks <= set(texts), "data is lost"
    assert len(set(texts)) == len(texts), "data is at two places"
    assert all((folder / "rootfs.squashfs").read_text() for folder in folders(host.paths.images))
    assert all((folder / "vmlinux").read_text() for folder in folders(host.paths.kernels))


def check_end(host: LastingHost, scenario: Scenario, pids: dict[str, int]) -> None:
    now = running(host)
    assert now.keys() == scenario.running
    assert {name: now[name] for name in scenario.untouched} == {name: pids[name] for name in scenario.untouched}
    found = entries(host.paths)
    assert not any(restoring(host, row) for row in inventory(host).values())
    # In between there may be one: a trashing that was killed before it moved anything, or a restoration after.
    assert all((host.paths.trash_entry(name) / "vm" / "overlay.ext4").exists() for name, _ in found), "an empty entry"
    trashed = sorted(manifest.name for _, manifest in found)
    assert (sorted(set(trashed)) if scenario.often else trashed) == sorted(scenario.trashed)
    assert scenario.end(host, inventory(host))


def check_starts(scenario: Scenario, starts: Sequence[str]) -> None:
    if scenario.starts is not None:
        assert set(starts) <= {f"env/{name}" for name in scenario.starts}
        assert len(set(starts)) == len(starts), "started again in vain"


def inventory(host: LastingHost) -> dict[str, VmRow]:
    engine = Engine(host.paths, host.clock)
    try:
        return {row.name: row for row in engine.inventory().vms("env")} if engine.exists else {}
    finally:
        engine.close()


def running(host: LastingHost) -> dict[str, int]:
    """Process id by VM."""
    table = host.backend.table
    return {row.name: table[row.id].pid for row in inventory(host).values() if row.id in table}


def artifacts(host: LastingHost) -> Made:
    """What is published, with what tells it from another making of the same."""
    made = [*folders(host.paths.images), *folders(host.paths.kernels)]
    return {folder.name: folder.stat().st_ino for folder in made}


def folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if not path.name.startswith(".")] if parent.is_dir() else []


def names(parent: Path) -> set[str]:
    return {path.name for path in folders(parent)}
