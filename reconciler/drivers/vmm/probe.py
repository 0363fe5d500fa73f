"""Which VMM processes are ours: a read-only look at /proc (proc(5)).

A VMM carries its stamp in its command line, `-name guest=banger.<install>.<vm_id>`, so it is recognised
without any record of ours: after a crash, an upgrade, or with the state directory gone. Light to import,
and free of everything that writes.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from reconciler.lib.errors import BangerError

PROC = Path("/proc")
_STATE, _PARENT, _START_TIME = 0, 1, 19  # fields 3, 4 and 22 of /proc/<pid>/stat, counted from field 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmm:
    """The identity of a VMM process; pids are reused, the pair of pid and start time is not.

    `start_time` is in clock ticks since boot: field 22 of /proc/<pid>/stat.
    """

    pid: int
    start_time: int
    vm_id: str
    install: str


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    start_time: int

    @property
    def running(self) -> bool:
        return self.state not in "ZXx"


def stamp(install: str, vm_id: str) -> str:
    """The argument of `-name` that marks a VMM as ours."""
    return f"guest=banger.{install}.{vm_id}"


def find(install: str, *, settled: bool = False, proc: Path = PROC) -> dict[str, Vmm]:
    """The running VMMs of an installation, by VM id. Raises BangerError when /proc cannot be read.

    Processes of other users are skipped. While a VMM daemonizes, two processes carry one stamp; the child
    is the one that stays.

    Parameters
    ----------
    settled: leave out those that are still being started. One whose starter was killed ends as soon as it would be done.
    """
    found: dict[str, tuple[Vmm, int]] = {}
    user = os.geteuid()
    try:
        with os.scandir(proc) as entries:
            folders = {int(entry.name): entry for entry in entries if entry.name.isdecimal()}
    except OSError as problem:
        raise BangerError(f"cannot list the processes in {proc}: {problem.strerror}") from None
    for pid, folder in sorted(folders.items(), key=itemgetter(0)):
        try:
            # The stamp first: it rules out nearly every process with a single read.
            vm_id = _stamped(_read(f"{folder.path}/cmdline"), install)
            if vm_id is None or folder.stat().st_uid != user:
                continue
            if settled and not _detached(folder.path):
                continue
            stat = _parse_stat(_read(f"{folder.path}/stat"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between two reads, or hidepid= hides it: somebody else's
        if not stat.running:
            continue
        other = found.get(vm_id)
        if other is None or other[1] != pid:
            found[vm_id] = (Vmm(pid=pid, start_time=stat.start_time, vm_id=vm_id, install=install), stat.parent)
    return {vm_id: vmm for vm_id, (vmm, _) in found.items()}


def alive(vmm: Vmm, *, proc: Path = PROC) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    try:
        stat = _parse_stat(proc.joinpath(str(vmm.pid), "stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.running and stat.start_time == vmm.start_time


def pidfd(vmm: Vmm) -> int | None:
    """A pidfd (pidfd_open(2)) of exactly this process, or None if it is gone. The caller closes it."""
    try:
        fd = os.pidfd_open(vmm.pid)
    except ProcessLookupError:
        return None
    # The fd pins whatever has the pid now; only then can the start time be trusted to be that process's.
    if alive(vmm):
        return fd
    os.close(fd)
    return None


def wait(fd: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends within that time: its fd becomes readable (pidfd_open(2))."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def send(fd: int, number: signal.Signals) -> None:
    """Signals the process of a pidfd; one that is gone needs no signal."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass


def _read(path: str) -> bytes:
    # Making a Path takes longer than reading such a file, and every pass of a controller reads thousands.
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def _stamped(cmdline: bytes, install: str) -> str | None:
    """The VM id in a VMM's command line. Its name is compared too: a `setpriv … qemu` or an editor is no VMM."""
    words = cmdline.split(b"\0")
    if not words[0].rpartition(b"/")[2].startswith(b"qemu-system-"):
        return None
    prefix = stamp(install, "").encode()
    for option, value in pairwise(words):
        if option == b"-name" and value.startswith(prefix):
            return value.removeprefix(prefix).decode("utf-8", "surrogateescape") or None
    return None


def _detached(folder: str) -> bool:
    """Whether a VMM has let go of its starter's pipes, which is the last that it does before it says that it is ready.

    (QEMU: os_setup_post in os-posix.c.)
    """
    return not os.readlink(f"{folder}/fd/1").startswith("pipe:")  # noqa: PTH115  # as in _read


def _parse_stat(raw: bytes) -> _Stat:
    # Field 2 is the program's name in parentheses and may hold spaces and parentheses itself.
    fields = raw.rpartition(b")")[2].split()
    return _Stat(fields[_STATE].decode(), int(fields[_PARENT]), int(fields[_START_TIME]))
