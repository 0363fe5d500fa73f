"""`check`, and the command line that a boot becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.drivers.vmm import cmdline
from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind, Boot, Disk, Forward, Nic, StopOutcome, check
from reconciler.drivers.vmm.qemu import CAPABILITIES
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.units import GIB, MIB

TCG = Accelerator(AcceleratorKind.TCG, tsc_khz=2_596_138)
KVM = Accelerator(AcceleratorKind.KVM)
MAC = "02:00:00:00:00:01"


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    for name in ("vmlinux", "initrd", "root.squashfs", "overlay.ext4"):
        (tmp_path / name).touch()
    return Boot(
        install="inst",
        vm_id="vm1",
        label="demo/web",
        cpus=2,
        memory=512 * MIB,
        vmlinux=tmp_path / "vmlinux",
        initrd=tmp_path / "initrd",
        cmdline="banger.x=1",
        disks=(
            Disk(serial="root", path=tmp_path / "root.squashfs", readonly=True),
            Disk(serial="overlay", path=tmp_path / "overlay.ext4", readonly=False),
        ),
        nic=Nic(mac=MAC, forwards=(Forward(host_port=2222, guest_port=22),)),
        paths=VmPaths(tmp_path / "root", tmp_path / "run"),
    )


def test_a_sound_boot_passes(boot: Boot) -> None:
    check(boot, CAPABILITIES)
    check(replace(boot, nic=None, disks=()), CAPABILITIES)
    check(replace(boot, nic=Nic(mac=MAC, tap="bgt0")), CAPABILITIES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vm_id": "a,b"}, "'a,b' is not a valid id"),
        ({"install": "a.b"}, "'a.b' is not a valid id"),
        ({"cpus": 0}, "0 CPUs asked for, 1 to 255 are possible"),
        ({"cpus": 256}, "256 CPUs"),
        ({"memory": 64 * MIB}, "at least 96.0 MiB"),
        ({"memory": 512 * MIB + 1}, "not a whole number of MiB"),
        ({"cmdline": "a\nb"}, "control characters"),
        ({"vmlinux": Path("/nonexistent")}, "kernel /nonexistent does not exist"),
        ({"initrd": Path("relative")}, "initramfs relative is not an absolute path"),
        ({"nic": Nic(mac="01:00:00:00:00:01")}, "not a unicast MAC"),
        ({"nic": Nic(mac=MAC, tap="x" * 16)}, "not an interface name"),
        ({"nic": Nic(mac=MAC, tap="a,script=/bin/sh")}, "not an interface name"),
        ({"nic": Nic(mac=MAC, tap="t", forwards=(Forward(host_port=1, guest_port=1),))}, "need the user-mode network"),
        ({"nic": Nic(mac=MAC, forwards=(Forward(host_port=0, guest_port=22),))}, "no pair of ports"),
    ],
)
def test_what_cannot_run_is_named(boot: Boot, change: dict[str, object], words: str) -> None:
    with pytest.raises(BangerError, match=r"VM demo/web cannot be started") as caught:
        check(replace(boot, **change), CAPABILITIES)  # type: ignore[arg-type]
    assert words in caught.value.cause


def test_disks_have_limits_and_unique_serials(boot: Boot) -> None:
    image = boot.disks[0].path
    many = tuple(Disk(serial=f"d{n}", path=image, readonly=True) for n in range(22))
    odd = (Disk(serial="x" * 21, path=image, readonly=True), *(Disk(serial="a", path=image, readonly=True),) * 2)
    with pytest.raises(BangerError, match="22 disks asked for, 20 are possible"):
        check(replace(boot, disks=many), CAPABILITIES)
    with pytest.raises(BangerError) as caught:
        check(replace(boot, disks=odd), CAPABILITIES)
    assert "is not 1 to 20 letters" in caught.value.cause
    assert "'a' is used twice" in caught.value.cause


def test_a_command_line_that_the_kernel_would_cut_is_refused(boot: Boot) -> None:
    check(replace(boot, cmdline="x" * 1792), CAPABILITIES)
    with pytest.raises(BangerError, match="kernel command line"):
        check(replace(boot, cmdline="x" * 1793), CAPABILITIES)


def test_all_problems_come_at_once(boot: Boot) -> None:
    with pytest.raises(BangerError) as caught:
        check(replace(boot, cpus=0, memory=1, cmdline="\0"), CAPABILITIES)
    assert caught.value.cause.count(";") == 3


def test_the_whole_command_line(boot: Boot, tmp_path: Path) -> None:
    assert cmdline.argv(boot, TCG, run="/run", root="/root") == [
        *("qemu-system-x86_64", "-name", "guest=banger.inst.vm1", "-M", "microvm,rtc=on,acpi=on"),
        *("-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-smp", "2", "-m", "512M"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,resourcecontrol=deny", "-daemonize", "-pidfile", "/run/pid"),
        *("-d", "unimp", "-D", "/root/vmm.log", "-chardev"),
        f"socket,id=serial0,path=/run/serial.sock,server=on,wait=off,logfile={tmp_path}/root/console.log,logappend=on",
        *("-serial", "chardev:serial0", "-qmp", "unix:/run/qmp.sock,server=on,wait=off"),
        *("-kernel", f"{tmp_path}/vmlinux", "-initrd", f"{tmp_path}/initrd", "-append"),
        "console=ttyS0 reboot=t panic=-1 quiet net.ifnames=0 sysrq_always_enabled=1 "
        "tsc_early_khz=2596138 tsc=reliable banger.x=1",
        "-drive",
        f"id=disk0,file.driver=file,file.filename={tmp_path}/root.squashfs,format=raw,if=none,readonly=on",
        *("-device", "virtio-blk-device,drive=disk0,serial=root", "-drive"),
        f"id=disk1,file.driver=file,file.filename={tmp_path}/overlay.ext4,format=raw,if=none,discard=unmap",
        *("-device", "virtio-blk-device,drive=disk1,serial=overlay"),
        *("-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22"),
        *("-device", f"virtio-net-device,netdev=net0,mac={MAC}"),
        *("-chardev", "pipe,id=agent,path=/run/agent", "-device", "virtio-serial-device", "-device"),
        *("virtserialport,chardev=agent,name=org.qemu.guest_agent.0", "-device"),
        "virtio-balloon-device,id=balloon0,deflate-on-oom=on,free-page-reporting=on",
        *("-device", "virtio-rng-device"),
    ]


def test_kvm_gets_no_tcg_options(boot: Boot) -> None:
    words = cmdline.argv(boot, KVM, run="/run", root="/root")
    assert words[words.index("-accel") + 1] == "kvm"
    assert words[words.index("-cpu") + 1] == "host"
    assert not any("tsc" in word or "tb-size" in word for word in words)


def test_commas_in_paths_are_doubled(boot: Boot, tmp_path: Path) -> None:
    disk = Disk(serial="a", path=tmp_path / "a,readonly=on.ext4", readonly=False)
    words = cmdline.argv(replace(boot, disks=(disk,)), TCG, run="/run", root="/root")
    assert any(f"file.filename={tmp_path}/a,,readonly=on.ext4," in word for word in words)


def test_a_tap_is_used_as_it_is(boot: Boot) -> None:
    words = cmdline.argv(replace(boot, nic=Nic(mac=MAC, tap="bgt7")), TCG, run="/run", root="/root")
    assert "tap,id=net0,ifname=bgt7,script=no,downscript=no" in words


@pytest.mark.parametrize(("memory", "cache"), [(128 * MIB, 48), (256 * MIB, 64), (GIB, 256), (64 * GIB, 256)])
def test_the_translation_cache_follows_the_memory(memory: int, cache: int) -> None:
    assert cmdline.translation_cache(memory) == cache


def test_outcomes_tell_whether_writes_are_safe() -> None:
    assert [outcome.lossless for outcome in StopOutcome] == [True, True, False, False]
