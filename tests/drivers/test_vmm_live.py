"""What changes while a VM runs, against a monitor that behaves like QEMU's and guests that do not always."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from reconciler.drivers.vmm import disks, facts, live
from reconciler.drivers.vmm.backend import Forward
from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.qmp import QmpError
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Silent
from reconciler.lib.units import MIB
from reconciler.model.vm import Protocol
from tests.fakes.monitor import FakeMonitor

WEB = Forward(host_port=8080, guest_port=80)
DNS = Forward(host_port=53, guest_port=53, protocol=Protocol.UDP)
ANYWHERE = Forward(host_port=2222, guest_port=22, address=IPv4Address(0))


@pytest.fixture
def paths(tmp_path: Path) -> VmPaths:
    return VmPaths(tmp_path / "vm", tmp_path)


@pytest.fixture
def monitor(paths: VmPaths, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMonitor]:
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.001)
    made = FakeMonitor(paths.qmp)
    yield made
    made.close()


@pytest.fixture
def vmm() -> Vmm:
    """A process that runs: this one."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return Vmm(pid=os.getpid(), start_time=int(fields[19]), vm_id="vm", install="i")


@pytest.fixture
def overlay(tmp_path: Path, monitor: FakeMonitor) -> Path:
    path = tmp_path / "overlay.ext4"
    disks.create_ext4(path, 16 * MIB, "overlay")
    monitor.add_disk("root", Path("/etc/passwd"), readonly=True)
    monitor.add_disk("overlay", path)
    return path


def resize(path: Path, size: int) -> None:
    """What the guest does, from outside: the file system fills the file."""
    subprocess.run(["resize2fs", "-f", path], check=True, capture_output=True)


def test_memory_goes_down_and_up_and_is_waited_for(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm) -> None:
    for target in (256 * MIB, 256 * MIB, 512 * MIB):
        live.set_memory(paths, vmm, target, 10, Silent())
        assert monitor.actual == target
    assert monitor.polling == 0


@pytest.mark.parametrize(("target", "words"), [(513, "started with 512.0 MiB"), (95, "at least 96.0 MiB")])
def test_memory_beyond_its_bounds_is_refused_at_once(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, target: int, words: str
) -> None:
    with pytest.raises(BangerError, match=words):
        live.set_memory(paths, vmm, target * MIB, 10, Silent())
    assert monitor.told("balloon") == []


def test_a_guest_keeps_what_it_has_in_use(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm) -> None:
    monitor.available = 312 * MIB
    with pytest.raises(BangerError, match=r"200\.0 MiB of its memory in use: it needs at least 232\.0 MiB") as caught:
        live.set_memory(paths, vmm, 231 * MIB, 10, Silent())
    assert caught.value.error_class.worth_retrying
    assert monitor.told("balloon") == []
    assert monitor.polling == 0
    live.set_memory(paths, vmm, 232 * MIB, 10, Silent())
    # Going up, it is not asked.
    monitor.available = 0
    live.set_memory(paths, vmm, 300 * MIB, 10, Silent())


def test_a_guest_without_a_driver_is_an_error_and_the_request_stands(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_STATISTICS_SECONDS", 0.02)
    monitor.available, monitor.step = None, 0
    with pytest.raises(BangerError, match=r"has 512.0 MiB of memory after 0.02 s, not 256.0 MiB") as caught:
        live.set_memory(paths, vmm, 256 * MIB, 0.02, Silent())
    assert caught.value.error_class.worth_retrying
    assert monitor.told("balloon") == [{"value": 256 * MIB}]
    assert monitor.polling == 0
    # The driver comes: the next call only has to wait.
    monitor.step = 64 * MIB
    live.set_memory(paths, vmm, 256 * MIB, 10, Silent())


def test_a_request_that_was_given_up_is_taken_back_by_the_next(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm) -> None:
    monitor.target, monitor.step = 128 * MIB, 0
    live.set_memory(paths, vmm, 512 * MIB, 10, Silent())
    assert monitor.target == 512 * MIB


def test_a_vm_without_a_balloon_says_so(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm) -> None:
    monitor.balloon = False
    with pytest.raises(BangerError, match="without a balloon"):
        live.set_memory(paths, vmm, 256 * MIB, 10, Silent())
    assert facts.read(paths).memory is None


def test_waiting_ends_with_the_vm_and_with_banger(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm) -> None:
    monitor.step = 0
    gone = Vmm(pid=vmm.pid, start_time=vmm.start_time + 1, vm_id="vm", install="i")
    with pytest.raises(BangerError, match="ended meanwhile"):
        live.set_memory(paths, gone, 256 * MIB, 60, Silent())
    cancel.cancel()
    try:
        with pytest.raises(CancelledError):
            live.set_memory(paths, vmm, 256 * MIB, 60, Silent())
    finally:
        cancel.reset()


def test_a_disk_grows_once_and_the_guest_follows(paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, overlay: Path) -> None:
    monitor.grow = resize
    for _ in range(2):
        assert live.resize_disk(paths, vmm, "overlay", 32 * MIB)
    assert monitor.told("block_resize") == [{"device": "drive-overlay", "size": 32 * MIB}]
    assert (overlay.stat().st_size, disks.filesystem_size(overlay)) == (32 * MIB, 32 * MIB)


def test_a_guest_that_does_not_follow_is_no_error(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, overlay: Path
) -> None:
    assert not live.resize_disk(paths, vmm, "overlay", 32 * MIB, deadline=0.01)
    assert (overlay.stat().st_size, disks.filesystem_size(overlay)) == (32 * MIB, 16 * MIB)
    # It did, later: nothing is left to do.
    resize(overlay, 32 * MIB)
    assert live.resize_disk(paths, vmm, "overlay", 32 * MIB, deadline=0)


def test_a_file_that_grew_before_qemu_was_told_is_finished(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, overlay: Path
) -> None:
    os.truncate(overlay, 32 * MIB)
    monitor.grow = resize
    assert live.resize_disk(paths, vmm, "overlay", 32 * MIB)
    assert monitor.sizes["overlay"] == 32 * MIB


@pytest.mark.parametrize(
    ("serial", "size", "words"),
    [
        ("overlay", 16 * MIB - 4096, "cannot become"),
        ("overlay", 32 * MIB + 512, "in steps of 4096"),
        ("root", 32 * MIB, "no disk root that could grow"),
        ("nonsuch", 32 * MIB, "no disk nonsuch that could grow"),
    ],
)
def test_what_no_disk_can_become_is_refused(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, overlay: Path, serial: str, size: int, words: str
) -> None:
    with pytest.raises(BangerError, match=words):
        live.resize_disk(paths, vmm, serial, size, deadline=0)
    assert monitor.told("block_resize") == []


def test_the_link_goes_down_and_up(paths: VmPaths, monitor: FakeMonitor) -> None:
    for up in (False, False, True):
        live.set_link(paths, up)
        assert monitor.link is up
    assert monitor.told("set_link")[0]["name"] == "net0"
    monitor.card = False
    with pytest.raises(BangerError, match="no network card"):
        live.set_link(paths, True)


def test_forwards_come_and_go_and_may_be_asked_for_twice(paths: VmPaths, monitor: FakeMonitor) -> None:
    for _ in range(2):
        live.add_forward(paths, WEB)
        live.add_forward(paths, ANYWHERE)
    assert live.list_forwards(paths) == frozenset({WEB, ANYWHERE})
    assert monitor.said() == ["hostfwd_add net0 tcp:127.0.0.1:8080-:80", "hostfwd_add net0 tcp:0.0.0.0:2222-:22"]
    for _ in range(2):
        live.remove_forward(paths, WEB)
    assert live.list_forwards(paths) == frozenset({ANYWHERE})
    assert monitor.said()[2:] == ["hostfwd_remove net0 tcp:127.0.0.1:8080"]


def test_a_forward_to_another_port_takes_its_place(paths: VmPaths, monitor: FakeMonitor) -> None:
    live.add_forward(paths, WEB)
    live.add_forward(paths, ANYWHERE)
    live.add_forward(paths, Forward(host_port=8080, guest_port=8000))
    assert live.list_forwards(paths) == frozenset({Forward(host_port=8080, guest_port=8000), ANYWHERE})
    # The old one is gone; removing it must not remove the new one.
    live.remove_forward(paths, WEB)
    assert live.list_forwards(paths) == frozenset({Forward(host_port=8080, guest_port=8000), ANYWHERE})


def test_a_taken_port_is_named_and_worth_a_retry(paths: VmPaths, monitor: FakeMonitor) -> None:
    monitor.taken = {8080}
    with pytest.raises(BangerError, match=r"port 8080 of 127\.0\.0\.1 cannot be forwarded: Could not") as caught:
        live.add_forward(paths, WEB)
    assert caught.value.error_class.worth_retrying
    assert "8080" in (caught.value.hint or "")


def test_a_set_of_forwards_takes_the_place_of_another(paths: VmPaths, monitor: FakeMonitor) -> None:
    live.set_forwards(paths, {WEB, ANYWHERE, DNS})
    moved = Forward(host_port=8080, guest_port=8000)
    for _ in range(2):
        live.set_forwards(paths, {moved, DNS})
        assert live.list_forwards(paths) == {moved, DNS}


def test_a_port_that_is_taken_is_named_and_keeps_no_other_from_being_forwarded(
    paths: VmPaths, monitor: FakeMonitor
) -> None:
    monitor.taken.add(53)
    with pytest.raises(BangerError, match=r"port 53 of 127\.0\.0\.1 cannot be forwarded") as caught:
        live.set_forwards(paths, {DNS, WEB})
    assert "--udp 'sport = :53'" in str(caught.value.hint)
    assert live.list_forwards(paths) == {WEB}


@pytest.mark.parametrize("change", [live.add_forward, live.remove_forward])
def test_a_bridged_vm_has_no_forwards(
    paths: VmPaths, monitor: FakeMonitor, change: Callable[[VmPaths, Forward], None]
) -> None:
    monitor.forwards = None
    assert live.list_forwards(paths) is None
    with pytest.raises(BangerError, match="no user-mode network") as caught:
        change(paths, WEB)
    assert not caught.value.error_class.worth_retrying


def test_all_facts_come_from_one_visit(paths: VmPaths, monitor: FakeMonitor, overlay: Path) -> None:
    live.add_forward(paths, WEB)
    monitor.asked.clear()
    found = facts.read(paths)
    assert found.memory == facts.Memory(boot=512 * MIB, now=512 * MIB)
    assert found.disks["overlay"] == facts.OpenDisk(drive="drive-overlay", path=overlay, size=16 * MIB, readonly=False)
    assert found.disks["root"].readonly
    assert found.forwards == frozenset({WEB})
    assert len(monitor.told("qmp_capabilities")) == 1


def test_a_busy_monitor_is_worth_a_retry(
    paths: VmPaths, monitor: FakeMonitor, vmm: Vmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (live, facts):
        monkeypatch.setattr(module, "QMP_SECONDS", 0.05)
    calls: tuple[Callable[[], object], ...] = (
        lambda: live.set_memory(paths, vmm, 256 * MIB, 10, Silent()),
        lambda: live.resize_disk(paths, vmm, "overlay", 32 * MIB),
        lambda: live.set_link(paths, True),
        lambda: live.add_forward(paths, WEB),
        lambda: live.remove_forward(paths, WEB),
        lambda: live.list_forwards(paths),
    )
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(paths.qmp))
        assert other.recv(100).startswith(b'{"QMP"')
        for call in calls:
            with pytest.raises(QmpError, match="does not answer in time") as caught:
                call()
            assert caught.value.error_class.worth_retrying


TABLE = """\
Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   21       127.0.0.1  8080       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]  19       127.0.0.1 49409       10.0.2.15    22     0     0\r
  UDP[HOST_FORWARD]  20       127.0.0.1    53       10.0.2.15    53     0     0\r
  TCP[HOST_FORWARD]  -1               *  2222       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  22 garbage              x\r
  TCP[HOST_FORWARD]  22             ::1    80       10.0.2.15    80     0     0\r
  ICMP[10 sec]       12       10.0.2.15     -    192.168.0.1     -     0     0\r
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        (" \r\n", None),
        ("Hub -1 (net0):\r\n", frozenset()),
        (TABLE, frozenset({Forward(host_port=49409, guest_port=22), ANYWHERE, DNS})),
    ],
)
def test_the_table_of_forwards_is_read(text: str, found: frozenset[Forward] | None) -> None:
    assert facts.parse_forwards(text) == found
