"""What a VM uses, as /proc and its disks tell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.probe import Vmm
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.lib.paths import Paths
from reconciler.observe.usage import observe_usage
from reconciler.store.inventory import VmRow
from tests.fakes.host import vm

INSTALL = "0123456789ab"


@pytest.fixture
def row() -> VmRow:
    spec = vm("dev", volumes=["data"])
    return VmRow(
        environment="demo",
        name="dev",
        id="a" * 12,
        spec=spec,
        created={},
        booted={},
        address=None,
        forwards={},
        created_at=1.0,
        started_at=2.0,
    )


@pytest.fixture
def paths(tmp_path: Path, row: VmRow) -> Paths:
    made = Paths.discover({"BANGER_HOME": str(tmp_path)})
    for path in (made.vm("demo", "dev").overlay, made.volume("demo", "dev", "data")):
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(b"x" * 8192)
            file.truncate(1 << 20)
    return made


@pytest.fixture
def child() -> Iterator[Vmm]:
    """A process that passes for a VMM, and has used a CPU for a while."""
    busy = "import os, sys\nwhile os.times().user < 0.2: pass\nprint(flush=True)\nsys.stdin.read()"
    disguise = ["qemu-system-x86_64", "-c", busy, "-name", probe.stamp(INSTALL, "a" * 12)]
    with subprocess.Popen(
        disguise, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline()
        yield probe.find(INSTALL)["a" * 12]
        process.kill()


def test_what_it_takes_of_each_disk(row: VmRow, paths: Paths) -> None:
    found = observe_usage(row, INSTALL, paths, {})
    assert [(disk.name, disk.size, 8192 <= disk.allocated < 1 << 19) for disk in found.disks] == [
        ("root", 1 << 20, True),
        ("data", 1 << 20, True),
    ]
    assert found.now is None
    paths.volume("demo", "dev", "data").unlink()
    assert [disk.name for disk in observe_usage(row, INSTALL, paths, {}).disks] == ["root"]


def test_what_its_process_takes(row: VmRow, paths: Paths, child: Vmm) -> None:
    now = observe_usage(row, INSTALL, paths, {row.id: child}).now
    assert now is not None
    assert 0.2 <= now.cpu < 60 and 0 < now.uptime < 60
    assert 1 << 20 < now.resident < 1 << 30
    assert (now.received, now.sent) == (None, None)


def test_a_process_that_got_its_number_is_not_it(row: VmRow, paths: Paths, child: Vmm) -> None:
    other = Vmm(pid=child.pid, start_time=child.start_time - 1, vm_id=child.vm_id, install=INSTALL)
    assert observe_usage(row, INSTALL, paths, {row.id: other}).now is None


def test_its_traffic_is_that_of_its_tap_the_other_way_round(row: VmRow, paths: Paths, tmp_path: Path) -> None:
    tap = LinkOwner(INSTALL, os.geteuid(), "demo", LinkKind.TAP, "dev").interface
    folder = tmp_path / "proc" / "7"
    (folder / "net").mkdir(parents=True)
    (folder / "stat").write_text("7 (qemu (x) y) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 500 0 0\n")
    (folder / "statm").write_text("9000 1000 1 1 0 1 0\n")
    (folder / "net" / "dev").write_text(
        "Inter-|   Receive\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
        f"{tap}: 111 2 0 0 0 0 0 0 2222 3 0 0 0 0 0 0\n"
    )
    vmm = Vmm(pid=7, start_time=500, vm_id=row.id, install=INSTALL)
    now = observe_usage(row, INSTALL, paths, {row.id: vmm}, proc=tmp_path / "proc").now
    assert now is not None
    ticks = os.sysconf("SC_CLK_TCK")
    assert (now.received, now.sent, now.cpu) == (2222, 111, 200 / ticks)
    assert now.resident == 1000 * os.sysconf("SC_PAGE_SIZE")
    (folder / "statm").unlink()
    assert observe_usage(row, INSTALL, paths, {row.id: vmm}, proc=tmp_path / "proc").now is None
