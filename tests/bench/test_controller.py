"""The numbers that the controller promises: how soon it acts, what it costs at rest, and how far it goes.

The times are promised of the worst try, and so are the worst of those made.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from reconciler.api.client import RemoteService
from reconciler.api.metrics import Counters
from reconciler.control.passes import run_pass
from reconciler.control.reconciler import PassReport
from reconciler.control.wheel import Wheel
from reconciler.daemon.engine import Engine
from reconciler.daemon.kept import KeptHost
from reconciler.daemon.readying import Readying
from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.exits import ExitWatch
from reconciler.lib.clock import SystemClock
from reconciler.lib.log import Log
from reconciler.lib.paths import Paths
from tests.bench.conftest import Measurement, Record
from tests.bench.standins import populated
from tests.fakes import vmm as stand_in_vmm
from tests.host.controlling import Controller, controller, until
from tests.host.home import Home, bare

pytestmark = pytest.mark.bench

TRIES = 20
REST_SECONDS = 60
SMALL = {**bare(), "memory": "128MiB"}
TICKS = os.sysconf("SC_CLK_TCK")


def worst(record: Record, promise: str, took: list[float], limit: float) -> None:
    assert len(took) == TRIES
    record(
        Measurement(
            promise=f"{promise}, worst of {TRIES}",
            ours=f"median {statistics.median(took) * 1000:.0f} ms",
            theirs=f"the clock, load {os.getloadavg()[0]:.1f}",
            value=max(took) * 1000,
            limit=limit * 1000,
            unit=" ms",
        )
    )


def obedient(home: Home, folder: Path) -> None:
    """Gives the home a QEMU whose guests shut down when they are asked to."""
    folder.mkdir()
    stand_in = folder / "qemu-system-x86_64"
    shutil.copy(stand_in_vmm.__file__, stand_in)
    stand_in.chmod(0o755)
    home.extra = {"PATH": f"{folder}:{os.environ['PATH']}"}


def done(running: Controller) -> int:
    """How many steps have ended well so far."""
    return sum(line["message"] == "done" for line in running.lines())


def next_after(old: probe.Vmm, home: Home) -> probe.Vmm | None:
    return next((vmm for vmm in probe.find(home.install).values() if vmm != old), None)


@contextmanager
def undisturbed(home: Home, running: Controller) -> Iterator[None]:
    """Repairs in the block are the first of their kind: what keeps being undone would be made to wait, on purpose."""
    service = RemoteService(Paths.discover(home.env).api_socket)
    try:
        service.resume(home.environment, None)
        before = done(running)
        yield
        until(lambda: done(running) > before, "the step has ended")
        until(lambda: not busy(service, home), "nothing is left to do")
    finally:
        service.close()


def busy(service: RemoteService, home: Home) -> bool:
    return any(c.type == "Progressing" for item in service.status(home.environment) for c in item.conditions)


@pytest.mark.host
def test_a_save_is_acted_on_at_once(home: Home, record: Record) -> None:
    """From the save to the first step's line in the log; every other save replaces the file instead of filling it."""
    vms: dict[str, object] = {"first": {**SMALL, "state": "stopped"}}
    draft = Home(home.root / "draft", home.cache, home.environment)

    def save(name: str) -> float:
        vms[name] = {**SMALL, "state": "stopped"}
        draft.write(vms)
        began = time.time()
        if len(vms) % 2:
            draft.file.rename(home.file)
        else:
            shutil.copy(draft.file, home.file)
        return began

    home.write(vms)
    with controller(home) as running:
        until(lambda: done(running) == 1, "it stands")
        took = []
        for number in range(TRIES):
            name = f"vm{number}"
            before = done(running)
            began = save(name)
            until(lambda before=before: done(running) > before, f"{name} is made")  # type: ignore[misc]  # a default
            [first] = [line for line in running.lines() if line.get("object") == f"vm/{name}" and "reason" in line]
            took.append(datetime.fromisoformat(first["time"]).timestamp() - began)
    worst(record, "save to first action", took, 0.5)


@pytest.mark.host
def test_a_killed_vmm_is_back_at_once(home: Home, record: Record) -> None:
    """From SIGKILL to the start of the next process, by the kernel's account of it."""
    home.write({"vm": SMALL})
    with controller(home) as running:
        until(lambda: done(running) == 2, "it runs")
        took = []
        for _ in range(TRIES):
            with undisturbed(home, running):
                [old] = probe.find(home.install).values()
                began = time.clock_gettime(time.CLOCK_BOOTTIME)
                os.kill(old.pid, 9)
                until(lambda old=old: next_after(old, home) is not None, "it is back")  # type: ignore[misc]  # a default
                new = next_after(old, home)
                assert new is not None
                # The kernel rounds down.
                took.append((new.start_time + 1) / TICKS - began)
    worst(record, "killed VMM to its next process", took, 0.5)


@pytest.mark.host
@pytest.mark.parametrize("kind", ["tap", "bridge"])
def test_a_deleted_link_is_back_at_once(
    home: Home, tmp_path: Path, subnet: Callable[[], str], record: Record, kind: str
) -> None:
    """From `ip link del` until a link has the name again.

    A VMM whose tap went is started anew, with another tap, once its guest has shut down (I12). So the guest is one that
    does so at once: the rest is banger's time.
    """
    obedient(home, tmp_path / "bin")
    home.write({"vm": {**SMALL, "network": "lab", "ready": {"ssh": False}}}, networks={"lab": {"cidr": subnet()}})
    with controller(home) as running:
        until(lambda: any(line["message"] == "ready" for line in running.lines()), "the guest runs")
        [name] = [link for link, alias in home.links().items() if (":vm/" in alias) == (kind == "tap")]
        place = Path("/sys/class/net", name)
        took = []
        for _ in range(TRIES):
            with undisturbed(home, running):
                began = time.monotonic()
                subprocess.run(["ip", "link", "del", name], check=True)
                until(place.exists, f"{name} is back")
                took.append(time.monotonic() - began)
    worst(record, f"deleted {kind} to its return", took, 1.0)


@pytest.mark.host
def test_flushed_rules_are_back_at_once(home: Home, tmp_path: Path, subnet: Callable[[], str], record: Record) -> None:
    """From `nft flush table`, of both tables of a network, until nft lists what it listed before."""
    obedient(home, tmp_path / "bin")
    vms = {"vm": {**SMALL, "network": "lab", "ready": {"ssh": False}, "ports": ["127.0.0.1:18022:22"]}}
    home.write(vms, networks={"lab": {"cidr": subnet()}})

    def rules() -> str:
        listings = [
            subprocess.run(["nft", "-s", "list", "table", *table], capture_output=True, text=True, check=True).stdout
            for table in tables
        ]
        return "".join(listings)

    with controller(home) as running:
        until(lambda: any(line["message"] == "ready" for line in running.lines()), "the guest runs")
        tables = home.tables()
        assert len(tables) == 2
        before = rules()
        took = []
        for _ in range(TRIES):
            with undisturbed(home, running):
                began = time.monotonic()
                for table in tables:
                    subprocess.run(["nft", "flush", "table", *table], check=True)
                until(lambda: rules() == before, "the rules are back")
                took.append(time.monotonic() - began)
    worst(record, "flushed rules to their return", took, 1.0)


def cpu_seconds(pid: int) -> float:
    """User and system time: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """The most memory that was resident: proc_pid_status(5), `VmHWM`."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_rest_costs_next_to_nothing(tmp_path: Path, record: Record) -> None:
    """The process itself, with 100 VMs that are as they should be, and its first passes behind it."""
    with populated(tmp_path, 100) as home, controller(home) as running:
        service = RemoteService(Paths.discover(home.env).api_socket)
        until(lambda: looked(service, home), "it has looked")
        assert not busy(service, home)
        service.close()
        pid = running.process.pid
        assert done(running) == 0
        time.sleep(2)
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(REST_SECONDS)
        used, passed = cpu_seconds(pid) - before, time.monotonic() - began
        memory = resident_mib(pid)
        assert done(running) == 0
    theirs = f"{passed:.0f} s, load {os.getloadavg()[0]:.1f}"
    record(Measurement("rest, 100 VMs", f"{used:.2f} s of processor", theirs, 100 * used / passed, 0.2, " %"))
    record(Measurement("memory, 100 VMs", "most resident", "the clock", memory, 70, " MiB"))


def looked(service: RemoteService, home: Home) -> bool:
    """Whether the present generation was planned for."""
    [own] = [item for item in service.status(home.environment) if item.kind == "environment"]
    return bool(own.details["generation"] == own.details["observedGeneration"])


@pytest.fixture
def many_files() -> Iterator[None]:
    """The end of each VMM is watched by an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_pass_over_a_thousand_vms_is_quick(tmp_path: Path, record: Record) -> None:
    """A whole pass that finds nothing to do: the store, every process of the host, every disk, and the plan.

    By the processor's time, which others on the machine cannot lengthen as they do the clock's; a pass never waits. The
    first one reads texts that the later ones have seen already, and has the ends of the VMMs watched: it is not counted.
    """
    clock = SystemClock()
    reports: list[PassReport] = []
    with populated(tmp_path, 1000) as home:
        engine = Engine(Paths.discover(home.env), clock)
        exits = ExitWatch(lambda key: None)
        exits.start()
        readying = Readying(engine, lambda *_: None, lambda *_: None)
        host = KeptHost(engine, Log(sys.stderr), Counters(), exits, readying, reports.append)
        wheel, lock = Wheel(random.Random(1)), threading.Lock()

        def one_pass() -> tuple[float, float]:
            wheel.poke(home.environment, 0.0)
            key = wheel.begin(float("inf"))
            assert key == home.environment
            began, used = time.perf_counter(), time.thread_time()
            run_pass(wheel, lock, host, clock, key, offer=lambda: None)
            return time.thread_time() - used, time.perf_counter() - began

        one_pass()
        writes = engine.database.rows("SELECT total_changes()")[0][0]
        took = [one_pass() for _ in range(15)]
        assert engine.database.rows("SELECT total_changes()")[0][0] == writes
        exits.stop()
        engine.close()
    assert all(report.error is None and report.plan is not None and not report.plan.steps for report in reports)
    used, passed = (statistics.median(column) * 1000 for column in zip(*took, strict=True))
    theirs = f"{passed:.0f} ms of the clock, load {os.getloadavg()[0]:.1f}"
    record(Measurement("pass, 1,000 VMs", f"{used:.0f} ms of processor", theirs, used, 150, " ms"))
