"""The command line of a microvm (qemu-system-x86_64(1); QEMU: docs/system/i386/microvm.rst). Pure."""

from __future__ import annotations

from pathlib import Path

from reconciler.drivers.vmm.backend import Accelerator, Boot, Disk, Nic
from reconciler.drivers.vmm.probe import stamp
from reconciler.lib.units import MIB

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
MACHINE = "microvm,rtc=on,acpi=on"
SERIAL = "serial0"
"""Id of the character device behind the guest's ttyS0."""
NETDEV = "net0"
"""Id of the network card's other end."""
BALLOON = "balloon0"
"""Id of the device through which the guest gives memory back."""

_KERNEL = (
    "console=ttyS0",
    # A microvm has no reset register that Linux would try first; a triple fault always ends it.
    "reboot=t",
    "panic=-1",
    "quiet",
    "net.ifnames=0",
    # Stopping may need the emergency sync over the serial line, whatever kernel.sysrq the guest has set.
    "sysrq_always_enabled=1",
)
AGENT_PORT = "org.qemu.guest_agent.0"
"""Where qemu-ga(8) looks for its host, below /dev/virtio-ports."""

# A guest that runs out of memory takes some back before it kills a process; pages that it does not use go back to the
# host by themselves (Linux: drivers/virtio/virtio_balloon.c, mm/page_reporting.c).
_BALLOON = "deflate-on-oom=on,free-page-reporting=on"


def kernel_cmdline(boot_cmdline: str, accelerator: Accelerator) -> str:
    """The whole kernel command line; what the caller adds comes last, so that it wins."""
    return " ".join((*_KERNEL, *_clock(accelerator.tsc_khz), *boot_cmdline.split()))


def _clock(tsc_khz: int | None) -> tuple[str, ...]:
    """An emulated guest's words about its time stamp counter, the only good clock that it has.

    Without the rate the guest measures it, and on a busy host may hang doing that. `reliable` (Linux: kernel-parameters,
    `tsc=`): else two processors that were not scheduled at once look like two counters that drift apart, the guest
    falls back to counting ticks, and can neither sleep without a tick nor wake between two.
    """
    return () if tsc_khz is None else (f"tsc_early_khz={tsc_khz}", "tsc=reliable")


def argv(boot: Boot, accelerator: Accelerator, *, run: str, root: str) -> list[str]:
    """The words that start a VM and return once its sockets listen.

    Parameters
    ----------
    run, root: how QEMU names the VM's two folders: `sockets.inside` of descriptors that it inherits. Not relative
        paths: a daemonized QEMU is in `/`, and removes its sockets by their name when it ends. For the log it
        also keeps a `%` of the real path from being read as a template.
    """
    words = [PROGRAM, "-name", stamp(boot.install, boot.vm_id)]
    words += ["-M", MACHINE, *machine(accelerator, boot.memory), "-smp", str(boot.cpus), "-m", f"{boot.memory // MIB}M"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # `spawn=deny` and `elevateprivileges=deny` would forbid fork and setsid, which -daemonize needs. seccomp(2)
    # sets no_new_privs anyway.
    words += ["-sandbox", "on,obsolete=deny,resourcecontrol=deny", "-daemonize"]
    words += ["-pidfile", f"{run}/{boot.paths.pidfile.name}"]
    # A daemon's stderr follows its log, and there is a log only for a log item; `unimp` is the quiet one.
    words += ["-d", "unimp", "-D", f"{root}/{boot.paths.vmm_log.name}"]
    console = f"socket,id={SERIAL},path={run}/{boot.paths.serial.name},server=on,wait=off"
    words += ["-chardev", f"{console},logfile={escaped(boot.paths.console_log)},logappend=on"]
    words += ["-serial", f"chardev:{SERIAL}", "-qmp", f"unix:{run}/{boot.paths.qmp.name},server=on,wait=off"]
    words += ["-kernel", str(boot.vmlinux), "-initrd", str(boot.initrd)]
    words += ["-append", kernel_cmdline(boot.cmdline, accelerator)]
    for index, disk in enumerate(boot.disks):
        words += _disk(index, disk)
    if boot.nic:
        words += _nic(boot.nic)
    words += ["-chardev", f"pipe,id=agent,path={run}/{boot.paths.agent.name}", "-device", "virtio-serial-device"]
    words += ["-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"]
    words += ["-device", f"virtio-balloon-device,id={BALLOON},{_BALLOON}"]
    return [*words, "-device", "virtio-rng-device"]


def machine(accelerator: Accelerator, memory: int) -> list[str]:
    """The words for CPU and accelerator. `memory` in bytes."""
    if accelerator.kind.emulated:
        return ["-accel", f"tcg,thread=multi,tb-size={translation_cache(memory)}", "-cpu", "max"]
    return ["-accel", "kvm", "-cpu", "host"]


def translation_cache(memory: int) -> int:
    """MiB of host memory for TCG's translated code, for a guest of `memory` bytes.

    Without a bound a Debian boot fills 180 MiB of it. Bounds of 64, 48, 32 and 16 make that boot take 1.1, 1.2,
    1.5 and 3 times as long, and each MiB saved is one of resident memory. So small guests get what still boots well.
    """
    return min(256, max(48, memory // MIB // 4))


def escaped(value: Path | str) -> str:
    """A value inside a QEMU option list, where a comma is written twice."""
    return str(value).replace(",", ",,")


def _disk(index: int, disk: Disk) -> list[str]:
    # discard: what the guest frees becomes a hole in the sparse file again. A read-only image may be shared.
    mode = "readonly=on" if disk.readonly else "discard=unmap"
    return [
        "-drive",
        f"id=disk{index},file.driver=file,file.filename={escaped(disk.path)},format=raw,if=none,{mode}",
        "-device",
        f"virtio-blk-device,drive=disk{index},serial={disk.serial}",
    ]


def _nic(nic: Nic) -> list[str]:
    if nic.tap is not None:
        netdev = f"tap,id={NETDEV},ifname={nic.tap},script=no,downscript=no"
    else:
        forwards = "".join(f",hostfwd={f.protocol}:{f.address}:{f.host_port}-:{f.guest_port}" for f in nic.forwards)
        netdev = f"user,id={NETDEV}{forwards}"
    return ["-netdev", netdev, "-device", f"virtio-net-device,netdev={NETDEV},mac={nic.mac}"]
