"""Real microvms: what starting and ending promises, with guests of busybox that boot in two seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.drivers.vmm import accel, disks, probe
from reconciler.drivers.vmm.backend import Boot, Disk, Forward, Nic, StopOutcome
from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.qemu import Qemu
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Silent
from reconciler.lib.units import MIB
from tests.host.conftest import Artifacts
from tests.host.rawqemu import free_port, qmp_command

pytestmark = pytest.mark.host

TCG = accel.emulated("a test")
INSTALL = f"test{os.getpid()}"
PATIENCE = 60.0
READY = b"guest is ready"

# `pending` is written and not synced: only an orderly end brings it to the disk.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo 0 > /proc/sys/kernel/sysrq
for module in /modules/*; do insmod $module; done
if [ -b /dev/vda ]; then
    # No write-back by itself, so that what is on the disk later was brought there by the end of the VM.
    echo 0 > /proc/sys/vm/dirty_writeback_centisecs
    mount -t ext4 -o commit=600 /dev/vda /mnt
    echo written > /mnt/pending
fi
cat /proc/cmdline
echo guest is ready
"""
# A power button press ends up as an input event; 24 bytes are one (struct input_event, linux/input.h).
# It ends by the button and by nothing else: a guest that went by itself would look just as obedient.
DEAF = INIT + "while :; do sleep 1000; done\n"
OBEDIENT = INIT + "dd if=/dev/input/event0 of=/dev/null bs=24 count=1 && sync && poweroff -f\n" + DEAF[len(INIT) :]


@dataclass(frozen=True)
class Guests:
    """One kernel and two initramfs: of a guest that hears the power button, and of one that does not."""

    vmlinux: Path
    obedient: Path
    deaf: Path


@pytest.fixture(scope="module")
def guests(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Guests:
    folder = tmp_path_factory.mktemp("guests")
    kernel = artifact_cache.kernel_paths
    unpacked = folder / "modules"
    wanted = ["*/kernel/drivers/acpi/button.ko*", "*/kernel/drivers/input/evdev.ko*"]
    subprocess.run(["unsquashfs", "-q", "-n", "-d", unpacked, kernel.modules, *wanted], check=True, capture_output=True)
    button = sorted(unpacked.rglob("*.ko*"))
    assert [module.name.partition(".")[0] for module in button] == ["button", "evdev"]
    modules = [*sorted(kernel.early_modules.iterdir()), *button]
    return Guests(
        kernel.vmlinux,
        initramfs(folder / "obedient", OBEDIENT, modules),
        initramfs(folder / "deaf", DEAF, modules),
    )


def initramfs(tree: Path, init: str, modules: list[Path]) -> Path:
    for name in ("bin", "dev", "proc", "sys", "mnt", "modules"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, tree / "bin" / "busybox")
    for number, module in enumerate(modules):
        shutil.copy(module, tree / "modules" / f"{number:02}.ko")
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    names = subprocess.run(["find", "."], cwd=tree, capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, capture_output=True, check=True
    )
    path = tree.with_suffix(".cpio")
    path.write_bytes(archive.stdout)
    return path


class Lab:
    """Makes boots below one folder, and leaves no VMM behind."""

    def __init__(self, base: Path, guests: Guests) -> None:
        self.base, self.guests, self.count = base, guests, 0
        self.qemu = Qemu()

    def boot(self, *, deaf: bool = False, disk: bool = False, nic: Nic | None = None, below: str = "") -> Boot:
        self.count += 1
        root = self.base / below / f"vm{self.count}"
        root.mkdir(parents=True)
        if disk:
            disks.create_ext4(root / "d.ext4", 64 * MIB, "data")
        return Boot(
            install=INSTALL,
            vm_id=f"vm{self.count}",
            label=f"test/vm{self.count}",
            cpus=1,
            memory=128 * MIB,
            vmlinux=self.guests.vmlinux,
            initrd=self.guests.deaf if deaf else self.guests.obedient,
            cmdline="",
            disks=(Disk(serial="data", path=root / "d.ext4", readonly=False),) if disk else (),
            nic=nic,
            paths=VmPaths(root, root / "run"),
        )

    def up(self, boot: Boot) -> Vmm:
        vmm = self.qemu.start(boot, TCG)
        self.ready(boot)
        return vmm

    def ready(self, boot: Boot) -> None:
        until(lambda: READY in boot.paths.console_log.read_bytes())

    def stop(self, boot: Boot, vmm: Vmm, deadline: float = PATIENCE) -> StopOutcome:
        return self.qemu.stop(boot.paths, vmm, deadline, Silent())


def until(condition: Callable[[], bool]) -> None:
    """Waits for something that another process does; polling is all that a console log allows."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def lab(tmp_path: Path, guests: Guests) -> Iterator[Lab]:
    lab = Lab(tmp_path, guests)
    yield lab
    for vmm in probe.find(INSTALL).values():
        lab.qemu.kill(vmm)


def content(boot: Boot, name: str) -> str:
    """A file on the VM's disk, read by the host as a guest would after a restart: with the journal replayed."""
    image = boot.disks[0].path
    subprocess.run(["e2fsck", "-fp", image], capture_output=True, check=False)
    return subprocess.run(["debugfs", "-R", f"cat {name}", image], capture_output=True, text=True, check=True).stdout


def test_a_guest_is_started_found_and_asked_to_shut_down(lab: Lab) -> None:
    boot = lab.boot(disk=True)
    vmm = lab.up(boot)
    assert probe.find(INSTALL) == {boot.vm_id: vmm}
    assert probe.alive(vmm)
    assert os.getsid(vmm.pid) != os.getsid(0)
    assert lab.stop(boot, vmm) is StopOutcome.POWERDOWN
    assert not probe.alive(vmm)
    assert probe.find(INSTALL) == {}
    assert content(boot, "pending") == "written\n"
    # QEMU took its sockets and its pid file along; the pipes to the agent, which it was given, go with the folder.
    assert sorted(entry.name for entry in boot.paths.run.iterdir()) == ["agent.in", "agent.out", "start.lock"]
    assert lab.stop(boot, vmm) is StopOutcome.ALREADY_GONE
    lab.qemu.kill(vmm)


def test_a_stop_during_the_boot_waits_for_the_guest(lab: Lab) -> None:
    boot = lab.boot()
    assert lab.stop(boot, lab.qemu.start(boot, TCG)) is StopOutcome.POWERDOWN


def test_starting_twice_is_starting_once(lab: Lab) -> None:
    boot = lab.boot()
    assert lab.qemu.start(boot, TCG) == lab.qemu.start(boot, TCG)


def test_of_starts_at_the_same_time_one_wins(lab: Lab) -> None:
    boot = lab.boot()
    results: list[Vmm] = []
    threads = [threading.Thread(target=lambda: results.append(lab.qemu.start(boot, TCG))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1


def test_traces_of_before_a_reboot_block_nothing(lab: Lab) -> None:
    boot = lab.boot()
    boot.paths.run.mkdir()
    boot.paths.pidfile.write_text(f"{os.getpid()}\n")
    for path in (boot.paths.qmp, boot.paths.serial):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    assert lab.stop(boot, lab.up(boot)) is StopOutcome.POWERDOWN


def test_a_killed_vm_starts_again(lab: Lab) -> None:
    boot = lab.boot(disk=True)
    first = lab.up(boot)
    lab.qemu.kill(first)
    assert boot.paths.qmp.exists()
    boot.paths.console_log.unlink()
    second = lab.up(boot)
    assert second != first
    assert lab.stop(boot, first) is StopOutcome.ALREADY_GONE
    assert probe.alive(second)


@pytest.mark.parametrize("below", ["d" * 100 + "/" + "e" * 100, "a,readonly=on,b=%s %d 'ü'"])
def test_any_folder_will_do(lab: Lab, below: str) -> None:
    boot = lab.boot(disk=True, below=below)
    assert lab.stop(boot, lab.up(boot)) is StopOutcome.POWERDOWN
    assert content(boot, "pending") == "written\n"


def test_a_deaf_guest_is_synced_and_then_ended(lab: Lab) -> None:
    boot = lab.boot(deaf=True, disk=True)
    assert lab.stop(boot, lab.up(boot), 0.5) is StopOutcome.SYNCED_KILL
    assert content(boot, "pending") == "written\n"


ATTACHED = """
import sys
from pathlib import Path
from reconciler.drivers.vmm import serial
from reconciler.lib.paths import VmPaths
with serial.attached(VmPaths(Path(sys.argv[1]), Path(sys.argv[2])), "test/vm"):
    print("attached", flush=True)
    sys.stdin.read()
"""


def test_a_deaf_guest_is_synced_though_a_console_is_attached(lab: Lab) -> None:
    boot = lab.boot(deaf=True, disk=True)
    vmm = lab.up(boot)
    words = [sys.executable, "-c", ATTACHED, str(boot.paths.root), str(boot.paths.run)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as console:
        assert console.stdout and console.stdout.readline() == b"attached\n"
        assert lab.stop(boot, vmm, 0.5) is StopOutcome.SYNCED_KILL
        assert console.wait(PATIENCE) == -signal.SIGTERM
    assert content(boot, "pending") == "written\n"


def test_a_power_cut_loses_what_was_not_synced(lab: Lab) -> None:
    """Not a promise: it shows that the tests above can fail."""
    boot = lab.boot(deaf=True, disk=True)
    lab.qemu.kill(lab.up(boot))
    assert content(boot, "pending") != "written\n"


def test_a_stopped_qemu_goes_on_to_shut_down(lab: Lab) -> None:
    boot = lab.boot(disk=True)
    vmm = lab.up(boot)
    os.kill(vmm.pid, signal.SIGSTOP)
    assert lab.stop(boot, vmm) is StopOutcome.POWERDOWN
    assert content(boot, "pending") == "written\n"


def test_a_qemu_that_does_not_listen_is_killed(lab: Lab) -> None:
    boot = lab.boot(deaf=True)
    vmm = lab.up(boot)
    with socket.socket(socket.AF_UNIX) as hog:
        # QMP has one client at a time: this one never lets go.
        hog.connect(str(boot.paths.qmp))
        assert hog.recv(10)
        assert lab.stop(boot, vmm, 0.5) is StopOutcome.KILLED
    assert not probe.alive(vmm)


def test_a_paused_vm_goes_on_to_shut_down(lab: Lab) -> None:
    boot = lab.boot(disk=True)
    vmm = lab.up(boot)
    qmp_command(boot.paths.qmp, "stop")
    assert lab.stop(boot, vmm) is StopOutcome.POWERDOWN


START_AND_HANG = """
import pickle, sys, time
from reconciler.drivers.vmm import accel
from reconciler.drivers.vmm.qemu import Qemu
boot = pickle.load(sys.stdin.buffer)
print("starting", flush=True)
Qemu().start(boot, accel.emulated("a test"))
print("started", flush=True)
time.sleep(1000)
"""


def starter(boot: Boot) -> subprocess.Popen[bytes]:
    import pickle

    child = subprocess.Popen([sys.executable, "-c", START_AND_HANG], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin
    child.stdin.write(pickle.dumps(boot))
    child.stdin.close()
    return child


def test_the_vm_outlives_a_killed_banger(lab: Lab) -> None:
    boot = lab.boot()
    with starter(boot) as child:
        assert child.stdout
        assert child.stdout.read(len("starting\nstarted\n")) == b"starting\nstarted\n"
        child.kill()
    vmm = probe.find(INSTALL)[boot.vm_id]
    lab.ready(boot)
    assert lab.qemu.start(boot, TCG) == vmm
    assert lab.stop(boot, vmm) is StopOutcome.POWERDOWN


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15])
def test_killed_anywhere_in_a_start_the_next_one_converges(lab: Lab, delay: float) -> None:
    boot = lab.boot(disk=True)
    with starter(boot) as child:
        assert child.stdout
        assert child.stdout.readline() == b"starting\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(delay)
        child.kill()
    vmm = lab.qemu.start(boot, TCG)
    lab.ready(boot)
    assert probe.find(INSTALL) == {boot.vm_id: vmm}


def test_a_taken_port_is_worth_a_retry(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        forward = Forward(host_port=taken.getsockname()[1], guest_port=22)
        with pytest.raises(BangerError, match="forward") as caught:
            lab.qemu.start(lab.boot(nic=Nic(mac="02:00:00:00:00:01", forwards=(forward,))), TCG)
    assert caught.value.error_class.worth_retrying
    assert caught.value.replay
    assert caught.value.replay.startswith("cd ")
    assert probe.find(INSTALL) == {}


def test_forwards_listen_on_loopback_only(lab: Lab) -> None:
    port = free_port()
    lab.qemu.start(lab.boot(nic=Nic(mac="02:00:00:00:00:01", forwards=(Forward(host_port=port, guest_port=22),))), TCG)
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    assert listening.split()[3] == f"127.0.0.1:{port}"


def test_a_missing_tap_is_not_made(lab: Lab) -> None:
    with pytest.raises(BangerError, match="no tap device bgnone0"):
        lab.qemu.start(lab.boot(nic=Nic(mac="02:00:00:00:00:01", tap="bgnone0")), TCG)
    assert not Path("/sys/class/net/bgnone0").exists()


def test_a_disk_of_another_vm_is_not_shared(lab: Lab) -> None:
    first = lab.boot(disk=True)
    lab.qemu.start(first, TCG)
    with pytest.raises(BangerError, match="lock") as caught:
        lab.qemu.start(replace(lab.boot(), disks=first.disks), TCG)
    assert caught.value.hint == "another process has one of the VM's disks open"
    with pytest.raises(BangerError, match="is in use"):
        disks.grow_ext4(first.disks[0].path, 128 * MIB)


def test_a_full_file_system_is_said_to_be_full(lab: Lab, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        with pytest.raises(BangerError) as caught:
            disks.create_ext4(small / "d.ext4", 1024 * MIB, "data")
        assert caught.value.error_class.worth_retrying
        assert caught.value.hint == f"df -h {small}"
        assert not (small / "d.ext4").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_probe_tells_the_truth_about_kvm(lab: Lab, tmp_path: Path) -> None:
    chosen = accel.choose(lab.guests.vmlinux, cache=tmp_path / "accel.json")
    boot = lab.boot()
    vmm = lab.qemu.start(boot, chosen)
    lab.ready(boot)
    assert lab.stop(boot, vmm) is StopOutcome.POWERDOWN
    assert chosen.reasons
