"""Real Debian guests: what the initramfs promises, seen from the outside."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from reconciler.drivers.guest import config, initramfs, keys, probe
from reconciler.drivers.guest.ssh import ssh_argv
from reconciler.lib.paths import ImagePaths, KernelPaths, ToolsPaths
from reconciler.lib.units import GIB
from tests.host.conftest import Artifacts
from tests.host.rawqemu import COMMAND_LINE, Disk, free_port, qmp_command, raw_qemu_argv, running, speaks_ssh

pytestmark = pytest.mark.host

ALIAS = "web-1.demo.vm"
MAC = "02:00:00:00:00:01"
BOOT_LIMIT = 120.0


@dataclass
class Guest:
    """One VM's files, and how to reach it while it runs."""

    folder: Path
    kernel: KernelPaths
    image: ImagePaths
    tools: ToolsPaths
    config: config.GuestConfig
    port: int = 0
    closed_port: int = 0
    memory_mib: int = 512
    volume: bool = True
    process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def qmp(self) -> Path:
        return self.folder / "qmp.sock"

    def argv(self) -> list[str]:
        config.write(self.folder / "config.tar", self.config)
        self.port, self.closed_port = free_port(), free_port()
        disks = [
            # Not the order in which they are used: only serials count.
            *([Disk("vol-data", self.folder / "data.ext4")] if self.volume else []),
            Disk("modules", self.kernel.modules, readonly=True),
            Disk("tools", self.tools.squashfs, readonly=True),
            Disk("config", self.folder / "config.tar", readonly=True),
            Disk("overlay", self.folder / "overlay.ext4"),
            Disk("root", self.image.squashfs, readonly=True),
        ]
        forwards = f"hostfwd=tcp:127.0.0.1:{self.port}-:22,hostfwd=tcp:127.0.0.1:{self.closed_port}-:5432"
        return raw_qemu_argv(
            kernel=self.kernel.vmlinux,
            initrd=initramfs.ensure(self.kernel, self.folder / "initramfs"),
            console=self.console,
            disks=disks,
            memory_mib=self.memory_mib,
            cpus=1,
            # A kernel in trouble says where, and says that as a warning.
            command_line=COMMAND_LINE.replace("quiet", "loglevel=5"),
            netdev=f"user,{forwards}",
            mac=MAC,
            qmp=self.qmp,
        )

    @contextmanager
    def booted(self) -> Iterator[Guest]:
        """Runs it until its ssh speaks, and to the end of the block."""
        with running(self.argv()) as self.process:
            deadline = time.monotonic() + BOOT_LIMIT
            while not speaks_ssh(self.port, 5.0):
                failure = probe.console_failure(self.console) if self.console.exists() else None
                assert failure is None and self.process.poll() is None and time.monotonic() < deadline, (
                    failure or self.console.read_text(errors="replace")[-3000:]
                )
            yield self

    def fails(self) -> str | None:
        """Runs it to its own end, and says why it ended."""
        with running(self.argv()) as process:
            process.wait(BOOT_LIMIT)
        return probe.console_failure(self.console)

    def ssh(self, *command: str, known_hosts: Path | None = None) -> subprocess.CompletedProcess[str]:
        argv = ssh_argv(
            host="127.0.0.1",
            port=self.port,
            key=self.folder / "client" / "id",
            known_hosts=known_hosts or self.folder / "known_hosts",
            alias=ALIAS,
            command=command,
            extra_options=("ConnectTimeout=60",),
        )
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def out(self, *command: str) -> str:
        done = self.ssh(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def power_off(self) -> None:
        """Presses the button and waits for the guest to go by itself."""
        assert self.process is not None
        qmp_command(self.qmp, "system_powerdown")
        assert self.process.wait(BOOT_LIMIT) == 0


def disk(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)


@pytest.fixture
def guest(artifact_cache: Artifacts, tmp_path: Path) -> Guest:
    public = keys.ensure_client_key(tmp_path / "client" / "id")
    host_public = keys.make_host_key(tmp_path / "host", ALIAS)
    (tmp_path / "known_hosts").write_text(keys.known_hosts_line(ALIAS, host_public))
    disk(tmp_path / "overlay.ext4", 4 * GIB)
    disk(tmp_path / "data.ext4", GIB)
    return Guest(
        tmp_path,
        artifact_cache.kernel_paths,
        artifact_cache.image_paths,
        artifact_cache.tools_paths,
        config.GuestConfig(
            hostname="web-1",
            environment="demo",
            machine_id="0123456789abcdef" * 2,
            mac=MAC,
            address=IPv4Interface("10.0.2.15/24"),
            gateway=IPv4Address("10.0.2.2"),
            nameservers=(IPv4Address("10.0.2.3"),),
            mtu=1400,
            authorized_keys=(public,),
            host_key=(tmp_path / "host" / keys.HOST_KEY).read_text(),
            host_key_public=host_public,
            # /var/run is an absolute link in every image: it must be followed inside the guest.
            volumes=(("vol-data", "/var/run/my data"),),
        ),
    )


def upper_files(guest: Guest, names: Sequence[str]) -> str:
    """What debugfs(8) says of files of the overlay's upper layer."""
    requests = "\n".join(f"stat /upper/{name}" for name in names)
    done = subprocess.run(
        ["debugfs", guest.folder / "overlay.ext4"], input=requests, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def test_a_guest_is_what_it_was_told_and_stays_it(guest: Guest) -> None:
    with guest.booted():
        assert guest.out("hostname") == "web-1"
        assert guest.out("cat", "/etc/hostname", "/etc/machine-id").split() == ["web-1", "0123456789abcdef" * 2]
        assert "inet 10.0.2.15/24" in guest.out("ip", "address", "show", "eth0")
        assert "mtu 1400" in guest.out("ip", "link", "show", "eth0")
        assert guest.out("ip", "route", "show", "default").startswith("default via 10.0.2.2 dev eth0")
        assert guest.out("cat", "/etc/resolv.conf") == "nameserver 10.0.2.3"
        assert guest.out("getent", "hosts", "web-1").split()[0] == "127.0.1.1"
        assert guest.out("findmnt", "-no", "FSTYPE", "/run/my data") == "ext4"
        assert guest.out("stat", "-c", "%U:%G %a", "/run/my data") == "root:root 755"
        guest.out("modprobe", "dummy")
        # The agent's port is the VMM's, and this plain QEMU has none.
        failed = guest.out("systemctl", "--failed", "--plain", "--no-legend").splitlines()
        assert [line for line in failed if not line.startswith("qemu-guest-agent.service ")] == []
        assert guest.ssh("sh", "-c", 'exit "$1"', "sh", "42").returncode == 42
        assert not probe.port_open("127.0.0.1", guest.closed_port, 30.0, through_forward=True, witness=guest.port)
        guest.out(
            "sh", "-c", "echo kept > '/run/my data/file'; echo mine > /etc/hostname; rm /etc/resolv.conf; touch /root/f"
        )
        guest.power_off()
    assert "FAILED" not in guest.console.read_text(errors="replace")
    written = upper_files(guest, ["etc/ssh/sshd_config.d/10-banger.conf", "root/.ssh", "root/f"])
    assert 'Fast link dest: "/run/banger/sshd.conf"' in written
    assert "root/.ssh: File not found" in written

    guest.config = replace(guest.config, mtu=1300)
    with guest.booted():
        assert guest.out("cat", "/run/my data/file", "/etc/hostname") == "kept\nmine"
        assert guest.ssh("test", "-e", "/etc/resolv.conf").returncode == 1
        assert "mtu 1300" in guest.out("ip", "link", "show", "eth0")


def test_small_and_without_logind_and_after_a_crash(guest: Guest) -> None:
    guest.memory_mib = 128
    with guest.booted():
        guest.out("systemctl", "mask", "--now", "systemd-logind.service", "dbus.service", "dbus.socket")
        guest.out("sh", "-c", "echo synced > /root/file; sync")
        # Killed, not stopped, at the end of the block.
    with guest.booted():
        assert guest.out("cat", "/root/file") == "synced"
        assert guest.ssh("systemctl", "is-active", "systemd-logind").stdout.strip() != "active"
        guest.power_off()


def test_another_host_key_is_refused(guest: Guest) -> None:
    other = guest.folder / "other_known_hosts"
    other.write_text(keys.known_hosts_line(ALIAS, keys.make_host_key(guest.folder / "other", ALIAS)))
    empty = guest.folder / "empty_known_hosts"
    empty.write_text("")
    with guest.booted():
        for known_hosts in (other, empty):
            refused = guest.ssh("true", known_hosts=known_hosts)
            assert refused.returncode == 255
            assert "Host key verification failed" in refused.stderr
        assert empty.read_text() == ""
        assert guest.ssh("true").returncode == 0


def test_a_missing_volume_is_said(guest: Guest) -> None:
    guest.volume = False
    failure = guest.fails()
    assert failure is not None
    assert failure.startswith("the disk 'vol-data' is missing; there are:")


def test_a_volume_that_cannot_be_mounted_is_said(guest: Guest) -> None:
    (guest.folder / "data.ext4").write_bytes(bytes(1024 * 1024))
    assert guest.fails() == "volume vol-data cannot be mounted at /var/run/my data"


def test_a_damaged_overlay_is_said(guest: Guest) -> None:
    (guest.folder / "overlay.ext4").write_bytes(bytes(1024 * 1024))
    failure = guest.fails()
    assert failure is not None
    assert failure.startswith("failed: mount -t ext4")


def test_a_wrong_mac_is_said(guest: Guest) -> None:
    guest.config = replace(guest.config, mac="02:00:00:00:00:99")
    assert guest.fails() == "no network interface has the address 02:00:00:00:00:99"
