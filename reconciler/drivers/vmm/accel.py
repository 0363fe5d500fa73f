"""Which accelerator runs guests here, found out by booting one.

/dev/kvm may exist, open, and still run no unmodified guest (nested virtualisation without the right MSRs), so
only a guest kernel that reached its first process proves anything. The result holds until the next reboot of
the host, for one kernel and one QEMU, and is remembered in a small file.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.drivers.vmm import cmdline, tinyguest
from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind
from reconciler.drivers.vmm.tsc import host_tsc_khz
from reconciler.lib import atomic
from reconciler.lib.clock import boot_id
from reconciler.lib.errors import BangerError
from reconciler.lib.run import CommandError, require, run, which
from reconciler.lib.units import MIB

KVM = Path("/dev/kvm")
PROBE_SECONDS = 3.0

_PROBE_MEMORY = 128 * MIB
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One consideration, for `banger doctor`."""

    name: str
    ok: bool
    reason: str


def choose(vmlinux: Path, *, cache: Path, requested: AcceleratorKind | None = None) -> Accelerator:
    """The accelerator for VMs of this kernel: KVM where a guest really boots with it, else TCG.

    Takes up to PROBE_SECONDS the first time after a reboot of the host, and a few file reads later.

    Parameters
    ----------
    vmlinux: the kernel's ELF image, which the probe boots.
    cache: the file that remembers the result; several kernels share it.
    requested: no choice is wanted. KVM that does not work is then an error.

    Raises BangerError: QEMU is not installed, the kernel is missing, or KVM was requested and does not work.
    """
    require(cmdline.PROGRAM, cmdline.PACKAGE)
    if requested is AcceleratorKind.TCG:
        return emulated("tcg was asked for")
    device = _device()
    if not device.ok:
        works, reason = False, device.reason
    else:
        works, reason = _remembered_probe(vmlinux, cache)
    if works:
        return Accelerator(AcceleratorKind.KVM, (reason,))
    if requested is AcceleratorKind.KVM:
        raise BangerError(f"KVM does not work here: {reason}", hint=f"use tcg, or mend it and remove {cache}")
    return emulated(reason)


def emulated(reason: str) -> Accelerator:
    """TCG, chosen for this reason, with what its guests have to know of this host."""
    return Accelerator(AcceleratorKind.TCG, (reason,), host_tsc_khz())


def explain(vmlinux: Path | None, *, cache: Path) -> list[Check]:
    """What `choose` goes by, step by step, ending with the choice. Without a kernel nothing is booted."""
    program = which(cmdline.PROGRAM)
    if program is None:
        return [Check("qemu", False, f"{cmdline.PROGRAM} is not installed; apt-get install {cmdline.PACKAGE}")]
    checks = [Check("qemu", True, program), device := _device()]
    if device.ok and vmlinux is not None:
        try:
            checks.append(Check("kvm boots a guest", *_remembered_probe(vmlinux, cache)))
        except BangerError as problem:
            return [*checks, Check("kvm boots a guest", False, problem.cause)]
    elif device.ok:
        return [*checks, Check("kvm boots a guest", False, "not tried: there is no kernel yet")]
    kind = AcceleratorKind.KVM if all(check.ok for check in checks) else AcceleratorKind.TCG
    return [*checks, Check("accelerator", True, kind.value)]


def _device() -> Check:
    if not KVM.exists():
        return Check("kvm device", False, f"there is no {KVM}")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Check("kvm device", False, f"this user may not open {KVM}: add it to the group kvm")
    return Check("kvm device", True, f"{KVM} may be opened")


def _remembered_probe(vmlinux: Path, cache: Path) -> tuple[bool, str]:
    """Whether KVM boots this kernel, and why so: from the file if it is about this very situation."""
    try:
        key = _key(vmlinux)
        if known := _recall(cache, key):
            return known
        # One probe at a time; whoever waited finds the other's result.
        with atomic.exclusive(cache.with_name(f"{cache.name}.lock"), what="the accelerator probe"):
            if known := _recall(cache, key):
                return known
            works, reason = _boot(vmlinux)
            _remember(cache, key, works, reason)
            return works, reason
    except OSError as problem:
        raise BangerError(f"cannot probe the accelerator: {problem}") from None


def _key(vmlinux: Path) -> str:
    """Changes with everything that could change the result, and costs three stats: QEMU's version is in its file."""
    files = (vmlinux, Path(require(cmdline.PROGRAM, cmdline.PACKAGE)).resolve())
    marks = [(str(path), (s := path.stat()).st_size, s.st_mtime_ns, s.st_ino) for path in files]
    return json.dumps([_FORMAT, boot_id(), *marks])


def _load(cache: Path) -> dict[str, Any]:
    """What is remembered of this boot of the host; an unreadable file remembers nothing."""
    try:
        data = json.loads(cache.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("boot") != boot_id() or not isinstance(data.get("probes"), dict):
        return {}
    return dict(data["probes"])


def _recall(cache: Path, key: str) -> tuple[bool, str] | None:
    match _load(cache).get(key):
        case {"works": bool(works), "reason": str(reason)}:
            return works, reason
    return None


def _remember(cache: Path, key: str, works: bool, reason: str) -> None:
    probes = {**_load(cache), key: {"works": works, "reason": reason}}
    text = json.dumps({"boot": boot_id(), "probes": probes}, indent=2)
    atomic.write_atomic(cache, text.encode() + b"\n")


def _boot(vmlinux: Path) -> tuple[bool, str]:
    """Boots the kernel with KVM and our one-file guest. The marker on its console is the only proof."""
    kvm = Accelerator(AcceleratorKind.KVM)
    with tempfile.TemporaryDirectory(prefix="banger-probe-") as name:
        initrd, console = Path(name, "initrd"), Path(name, "console")
        initrd.write_bytes(tinyguest.initramfs())
        argv = [cmdline.PROGRAM, "-M", cmdline.MACHINE, *cmdline.machine(kvm, _PROBE_MEMORY), "-smp", "1"]
        argv += ["-m", f"{_PROBE_MEMORY // MIB}M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-serial", f"file:{cmdline.escaped(console)}", "-kernel", str(vmlinux), "-initrd", str(initrd)]
        argv += ["-append", cmdline.kernel_cmdline("", kvm)]
        try:
            said, end = run(argv, timeout=PROBE_SECONDS, check=False).stderr.decode("utf-8", "replace"), "QEMU ended"
        except CommandError as problem:
            if problem.returncode is None and not problem.output and not console.exists():
                raise  # it never ran
            said, end = problem.output, f"it was silent for {PROBE_SECONDS:g} s"
        printed = console.read_bytes() if console.exists() else b""
    if tinyguest.MARKER in printed:
        return True, "a guest boots with kvm"
    words = " ".join(said.split()) or " ".join(printed.decode("utf-8", "replace").split())[-200:]
    return False, f"{KVM} opens, but a guest does not boot with it: {words or end}"
