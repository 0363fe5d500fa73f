"""How a VM ended, told from what it left behind; and how long one has run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.drivers.guest import farewell
from reconciler.drivers.vmm import probe
from reconciler.lib.paths import Paths, VmPaths
from reconciler.model.observed import Ended, ObservedVm, Unknown
from reconciler.model.vm import RestartPolicy
from reconciler.observe.vms import how_it_ended, observe_vm
from reconciler.store.inventory import VmRow
from tests.fakes.host import vm

BOOT = b"\r\n-- start at 2026-01-01 00:00:00 UTC --\r\n"
OFF = b"[   12.345678] reboot: Power down\r\n"
AGAIN = b"[   12.345678] reboot: Restarting system\r\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path)})


@pytest.fixture
def place(paths: Paths) -> VmPaths:
    made = paths.vm("env", "dev")
    for folder in (made.root, made.run):
        folder.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("console", "ended"),
    [
        (BOOT + b"dev login: " + OFF, Ended.POWEROFF),
        (BOOT + b"dev login: reboot: Power down\n", Ended.FAILED),  # typed, not said
        (BOOT + b"Debian GNU/Linux\r\n" + OFF, Ended.POWEROFF),
        (BOOT + b"reboot: Power down\n", Ended.POWEROFF),
        (BOOT + AGAIN, Ended.REBOOT),
        (BOOT + b"reboot: Restarting system with command 'x'\n\n", Ended.REBOOT),
        (BOOT + b"\nbanger: failed: mount /dev/vdb\n" + AGAIN, Ended.FAILED),
        (
            BOOT + b"[    1.0] Kernel panic - not syncing: no init\r\n[    1.0] ---[ end Kernel panic ]---\r\n",
            Ended.FAILED,
        ),
        (BOOT + OFF + b"more\r\n", Ended.FAILED),
        (BOOT + b"Debian GNU/Linux\r\n", Ended.FAILED),
        (BOOT + OFF + BOOT + b"Debian GNU/Linux\r\n", Ended.FAILED),
        # Not a word since the start: it never came up, or nobody can tell.
        (BOOT + OFF + BOOT, None),
        (BOOT, None),
        (b"", None),
        (b"x" * 10_000 + b"\r\n" + OFF, Ended.POWEROFF),
        (b"\xff\xfe\x00\r\n" + OFF, Ended.POWEROFF),
    ],
)
def test_the_last_words_tell_how_a_guest_left(place: VmPaths, console: bytes, ended: Ended | None) -> None:
    place.console_log.write_bytes(console)
    assert how_it_ended(place) is ended


def test_a_killed_vmm_leaves_its_pid_file(place: VmPaths) -> None:
    place.console_log.write_bytes(BOOT + OFF)
    place.pidfile.touch()
    assert how_it_ended(place) is Ended.FAILED


def test_a_log_that_is_not_there_tells_nothing(place: VmPaths) -> None:
    assert how_it_ended(place) is Ended.FAILED
    assert farewell.last_words(place.root) is farewell.Farewell.NONE


def test_a_start_is_marked_where_the_guest_goes_on(place: VmPaths) -> None:
    place.console_log.write_bytes(OFF.rstrip())
    farewell.mark_start(place.console_log, "2026-01-01 00:00:00 UTC")
    assert farewell.last_words(place.console_log) is farewell.Farewell.SILENT
    with place.console_log.open("ab") as file:
        file.write(AGAIN)
    assert farewell.last_words(place.console_log) is farewell.Farewell.REBOOT


@pytest.fixture
def look(paths: Paths, place: VmPaths) -> Callable[..., ObservedVm]:
    place.console_log.write_bytes(BOOT + OFF)

    def look(
        policy: RestartPolicy = RestartPolicy.NEVER,
        *,
        started: float | None = 1.0,
        running: bool = False,
        blind: bool = False,
        wanted: RestartPolicy | None = None,
    ) -> ObservedVm:
        row = VmRow(
            environment="env",
            name="dev",
            id="id",
            spec=vm("dev", restart=policy),
            created={},
            booted={},
            address=None,
            forwards={},
            created_at=1.0,
            started_at=started,
            halted="by hand",
            condemned="0" * 12,
        )
        processes = {"id": probe.Vmm(pid=1, start_time=100, vm_id="id", install="i")} if running else {}
        want = vm("dev", restart=wanted) if wanted else None
        return observe_vm(row, "i", paths, Unknown("denied") if blind else processes, want)

    return look


def test_an_end_is_looked_for_where_it_matters(look: Callable[..., ObservedVm]) -> None:
    assert look().ended is Ended.POWEROFF
    assert look(started=None).ended is None, "never started, or stopped by us"
    assert look(running=True).ended is None
    assert look(blind=True).ended is None, "I4"
    assert look(RestartPolicy.ALWAYS).ended is None
    assert look(RestartPolicy.ALWAYS, wanted=RestartPolicy.ON_FAILURE).ended is Ended.POWEROFF


def test_what_was_decided_is_observed_too(look: Callable[..., ObservedVm]) -> None:
    assert (look().halted, look().condemned) == ("by hand", "0" * 12)


def test_a_vm_is_as_old_as_its_process_by_the_boot_clock(
    look: Callable[..., ObservedVm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wall clock that jumps means nothing."""
    assert look().uptime is None
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 3601.0}.__getitem__)
    monkeypatch.setattr(time, "time", lambda: -1.0)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    assert look(running=True).uptime == 3600.0
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 0.5}.__getitem__)
    assert look(running=True).uptime == 0.0


def test_a_real_process_is_as_old_as_it_is() -> None:
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    assert 0 <= age <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert age >= time.process_time() / (os.cpu_count() or 1) - 1
