"""A plain QEMU starter, without banger: host tests of the guest use it, and benchmarks compare with it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.drivers.guest.probe import ssh_banner
from reconciler.drivers.vmm.tsc import host_tsc_khz

TSC = f"tsc_early_khz={host_tsc_khz()} tsc=reliable"
"""TCG's time stamp counter is the host's; a kernel that has to find out its rate hangs now and then."""

PAUSE = 0.1
"""Seconds between two questions to a guest that boots."""

COMMAND_LINE = f"console=ttyS0 reboot=t panic=-1 quiet {TSC}"


@dataclass(frozen=True)
class Disk:
    """One virtio disk, as the guest knows it by its serial."""

    serial: str
    path: Path
    readonly: bool = False


def raw_qemu_argv(
    *,
    kernel: Path,
    initrd: Path,
    console: Path,
    disks: Sequence[Disk] = (),
    memory_mib: int = 512,
    cpus: int = 2,
    command_line: str = COMMAND_LINE,
    netdev: str | None = None,
    mac: str = "52:54:00:00:00:01",
    qmp: Path | None = None,
) -> list[str]:
    """The command line of an emulated microvm.

    Parameters
    ----------
    netdev: QEMU's `-netdev` value without its id, such as `user,hostfwd=tcp:127.0.0.1:2222-:22`; None for no network.
    qmp: a socket on which QEMU listens for one QMP client.
    """
    argv = ["qemu-system-x86_64", "-M", "microvm,rtc=on,acpi=on", "-accel", "tcg,thread=multi", "-cpu", "max"]
    argv += [
        "-smp",
        str(cpus),
        "-m",
        str(memory_mib),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]
    argv += ["-serial", f"file:{console}", "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line]
    for number, disk in enumerate(disks):
        path = str(disk.path).replace(",", ",,")
        readonly = ",readonly=on" if disk.readonly else ""
        argv += ["-drive", f"id=d{number},file={path},format=raw,if=none{readonly}"]
        argv += ["-device", f"virtio-blk-device,drive=d{number},serial={disk.serial}"]
    if netdev:
        argv += ["-netdev", f"{netdev},id=n0", "-device", f"virtio-net-device,netdev=n0,mac={mac}"]
    argv += ["-device", "virtio-rng-device"]
    if qmp:
        argv += ["-qmp", f"unix:{qmp},server=on,wait=off"]
    return argv


@contextmanager
def running(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A QEMU that is gone at the end, whatever happened."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def qmp_command(path: Path, name: str, arguments: Mapping[str, object] | None = None) -> object:
    """Runs one QMP command and returns its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        file = connection.makefile("rw")
        _until(file, "QMP")
        for message in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": dict(arguments or {})}):
            file.write(json.dumps(message) + "\n")
            file.flush()
            answer = _until(file, "return", "error")
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer["return"]


def free_port() -> int:
    """A TCP port of loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def speaks_ssh(port: int, patience: float) -> bool:
    """Asks once, after a pause: a guest without a server that is asked without one does little else than to refuse.

    An emulated guest of one processor boots in 50 s then, and in 18 s with it.
    """
    time.sleep(PAUSE)
    return ssh_banner("127.0.0.1", port, patience)


def _until(lines: Iterable[str], *keys: str) -> dict[str, object]:
    for line in lines:
        message: dict[str, object] = json.loads(line)
        if any(key in message for key in keys):
            return message
    raise ConnectionError("QEMU closed its QMP socket")
