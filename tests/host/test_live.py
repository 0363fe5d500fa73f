"""A running Debian guest whose memory, disks, link and forwards change: it must follow, and never restart."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.drivers.guest import probe as guest_probe
from reconciler.drivers.vmm import disks, facts, live, probe
from reconciler.drivers.vmm.backend import Forward
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths, VmPaths
from reconciler.lib.progress import Silent
from reconciler.lib.units import MIB
from tests.host.conftest import Artifacts
from tests.host.home import Home
from tests.host.rawqemu import free_port

pytestmark = pytest.mark.host

PATIENCE = 60.0


@dataclass(frozen=True)
class Running:
    """One VM that all tests here share, since none of them may harm it."""

    home: Home
    paths: VmPaths
    volume: Path
    vmm: Vmm
    boot: str

    def out(self, command: str) -> str:
        return self.home.exec("dev", "sh", "-c", command)

    def available(self) -> int:
        return int(self.out("sed -n 's/MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024

    def size(self, mount: str) -> int:
        """Bytes, as `df` has it: without the file system's own tables."""
        return int(self.out(f"df --output=size -B1 {mount}").split()[-1])


@pytest.fixture(scope="module")
def booted(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = Home(tmp_path_factory.mktemp("live") / "home", artifact_cache.cache, f"t{secrets.token_hex(3)}")
    try:
        volumes = {"data": {"size": "64MiB", "mount": "/data"}}
        home.write({"dev": {"image": "base", "memory": "512MiB", "volumes": volumes, "ready": {"timeout": "240s"}}})
        home.run("apply")
        paths = Paths.discover({"BANGER_HOME": str(home.root)})
        (vmm,) = probe.find(home.install).values()
        yield Running(
            home,
            paths.vm(home.environment, "dev"),
            paths.volume(home.environment, "dev", "data"),
            vmm,
            home.exec("dev", "cat", "/proc/sys/kernel/random/boot_id"),
        )
    finally:
        home.destroy()
    assert home.vmms() == {}


@pytest.fixture
def dev(booted: Running) -> Iterator[Running]:
    yield booted
    assert probe.find(booted.home.install) == {booted.vmm.vm_id: booted.vmm}
    # And no unit has failed.
    assert booted.out("cat /proc/sys/kernel/random/boot_id; systemctl --failed --plain --no-legend") == booted.boot


def until(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_memory_follows_down_and_up(dev: Running) -> None:
    dev.out("systemctl is-system-running --wait || true")  # what is still being started takes memory of its own
    before = dev.available()
    live.set_memory(dev.paths, dev.vmm, 256 * MIB, PATIENCE, Silent())
    assert facts.read(dev.paths).memory == facts.Memory(boot=512 * MIB, now=256 * MIB)
    assert abs(before - dev.available() - 256 * MIB) < 32 * MIB
    with pytest.raises(BangerError, match="of its memory in use"):
        live.set_memory(dev.paths, dev.vmm, 96 * MIB, PATIENCE, Silent())
    assert facts.read(dev.paths).memory == facts.Memory(boot=512 * MIB, now=256 * MIB)
    live.set_memory(dev.paths, dev.vmm, 512 * MIB, PATIENCE, Silent())
    assert abs(before - dev.available()) < 32 * MIB


def test_the_guest_uses_what_its_balloon_offers(dev: Running) -> None:
    features = dev.out("cat /sys/bus/virtio/drivers/virtio_balloon/virtio*/features")
    # virtio 1.2, section 5.5.3: VIRTIO_BALLOON_F_STATS_VQ, _DEFLATE_ON_OOM and _PAGE_REPORTING.
    assert [features[bit] for bit in (1, 2, 5)] == ["1", "1", "1"]


def test_disks_grow_and_keep_what_is_on_them(dev: Running) -> None:
    sums = "sync; sha256sum /root/file /data/file"
    dev.out("head -c 20M /dev/urandom > /root/file; head -c 20M /dev/urandom > /data/file")
    before = dev.out(sums)
    for serial, mount, size in (("overlay", "/", 1536 * MIB), ("vol-data", "/data", 256 * MIB)):
        assert dev.size(mount) < 0.75 * size
        assert live.resize_disk(dev.paths, dev.vmm, serial, size, PATIENCE)
        assert 0.9 * size < dev.size(mount) <= size
    assert dev.out(sums) == before
    dev.out("fallocate -l 150M /data/more; rm /data/more")


def test_a_resize_that_the_guest_missed_is_finished_later(dev: Running) -> None:
    dev.out("systemctl stop systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service")
    assert not live.resize_disk(dev.paths, dev.vmm, "vol-data", 320 * MIB, deadline=1.0)
    assert disks.filesystem_size(dev.volume) == 256 * MIB
    dev.out("systemctl start systemd-udevd.service")
    # What the end of a boot does.
    dev.out("systemctl start banger-grow.service")
    assert live.resize_disk(dev.paths, dev.vmm, "vol-data", 320 * MIB, PATIENCE)
    assert dev.size("/data") > 280 * MIB


def test_a_disk_that_grows_many_times_in_a_row_ends_at_the_last_size(dev: Running) -> None:
    for size in range(384, 448, 8):
        live.resize_disk(dev.paths, dev.vmm, "vol-data", size * MIB, deadline=0.0)
    assert live.resize_disk(dev.paths, dev.vmm, "vol-data", 448 * MIB, PATIENCE)


def test_the_guest_sees_its_cable_pulled_and_plugged_in(dev: Running) -> None:
    def printed(words: str) -> bool:
        return words in dev.paths.console_log.read_text(errors="replace")

    forwards = live.list_forwards(dev.paths)
    assert forwards is not None
    (ssh,) = forwards
    wait = "until [ $(cat /sys/class/net/eth0/carrier) = {} ]; do sleep 0.1; done; echo carrier-{} >/dev/ttyS0"
    dev.out(f"({wait.format(0, 'off')}; {wait.format(1, 'on')}) </dev/null >/dev/null 2>&1 &")
    for _ in range(2):
        live.set_link(dev.paths, up=False)
    assert until(lambda: printed("carrier-off"))
    assert not printed("carrier-on")
    assert not guest_probe.ssh_banner("127.0.0.1", ssh.host_port, 1.0)
    for _ in range(2):
        live.set_link(dev.paths, up=True)
    assert until(lambda: printed("carrier-on"))
    assert until(lambda: guest_probe.ssh_banner("127.0.0.1", ssh.host_port, 5.0))


def test_ports_are_forwarded_and_no_longer(dev: Running) -> None:
    forward = Forward(host_port=free_port(), guest_port=22)
    present = live.list_forwards(dev.paths) or frozenset()
    for _ in range(2):
        live.add_forward(dev.paths, forward)
    assert live.list_forwards(dev.paths) == present | {forward}
    assert guest_probe.ssh_banner("127.0.0.1", forward.host_port, PATIENCE)
    for _ in range(2):
        live.remove_forward(dev.paths, forward)
    assert live.list_forwards(dev.paths) == present
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.host_port), 5)

    with (
        socket.create_server(("127.0.0.1", forward.host_port)),
        pytest.raises(BangerError, match=str(forward.host_port)) as caught,
    ):
        live.add_forward(dev.paths, forward)
    assert caught.value.error_class.worth_retrying


def test_grown_file_systems_are_clean_after_an_orderly_stop(booted: Running) -> None:
    booted.home.run("vm", "stop", "dev")
    for image in (booted.paths.overlay, booted.volume):
        subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
