"""The keeper of consoles: one small process for all running VMs of an installation, which bounds what they log.

QEMU appends to its logs for as long as a guest talks, whether or not any banger runs to see it. So whoever starts a VM
starts this too, unless it is there. It lives until the last VM has ended, needs nothing but /proc to know which those are,
and whoever kills it lets logs grow only until the next start or change of a VM. Nothing depends on it but their size, and
how exactly it is known when a line was written.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import sys
import time
from itertools import pairwise
from pathlib import Path

from reconciler.drivers.vmm import probe
from reconciler.lib import logfile
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths

TYPE_CHECKING = False  # typing takes longer to load, and more memory, than all that is done here
if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.drivers.vmm.probe import Vmm

LOOK_SECONDS = 1.0
"""Between two looks at a log: how exactly its times are known."""
_FIND_SECONDS = 10.0  # VMs that were started meanwhile
_BUSY_SHARE = 50  # a look may take this part of the time
_START_SECONDS = 20.0
_PACKAGE = Path(__file__).resolve().parents[3]
_BOOT = """
import sys
sys.path.insert(0, sys.argv[1])
from reconciler.drivers.vmm.keeper import main
main(sys.argv[2], sys.argv[3])
"""


def ensure(install: str, lock: Path) -> None:
    """Sees to it that there is a keeper if a VM runs. Only one holds the lock, whoever starts how many.

    Never raises for a keeper that cannot be had: VMs run without, and the next start tries again.
    """
    # ruff: noqa: PLC0415  # the keeper itself does without these
    from reconciler.drivers.vmm import scope
    from reconciler.lib.run import CommandError

    try:
        if _taken(lock) or not probe.find(install):
            return
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(_PACKAGE), install, str(lock)]
        # As for a VMM, nothing of the surroundings outlives who started it.
        scope.launch(argv, install=install, vm_id="consoles", folder=lock.parent, timeout=_START_SECONDS, pass_fds=())
    except (OSError, BangerError, CommandError):
        return


def _taken(lock: Path) -> bool:
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _hold(str(lock))
    if fd is None:
        return True
    os.close(fd)
    return False


def main(install: str, lock: str) -> None:
    """The process: returns to its parent at once, and keeps watch in a session of its own."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    # Each running VM takes a descriptor (pidfd).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    keep(install, lock)


def keep(install: str, lock: str) -> None:
    """Keeps watch until no VM runs, if nobody else does."""
    while (held := _hold(lock)) is not None:
        try:
            _watch(install)
        finally:
            os.close(held)
        # Who started a VM just now may have found the lock still taken.
        if not probe.find(install):
            return


def _watch(install: str) -> None:
    lengths: dict[Path, int | None] = {}
    while vmms := probe.find(install):
        logs = {log for vmm in vmms.values() for log in _logs(vmm)}
        lengths = {log: lengths.get(log) for log in logs}
        _bound_others(logs)
        ends = select.poll()
        open_fds = []
        try:
            for vmm in vmms.values():
                fd = probe.pidfd(vmm)
                if fd is not None:
                    open_fds.append(fd)
                    ends.register(fd, select.POLLIN)
            again = time.monotonic() + _FIND_SECONDS
            ended = len(open_fds) < len(vmms)
            while not ended and time.monotonic() < again:
                began = time.monotonic()
                look(lengths)
                pause = max(LOOK_SECONDS, _BUSY_SHARE * (time.monotonic() - began))
                ended = bool(ends.poll(pause * 1000))
        finally:
            look(lengths)  # the last words
            for fd in open_fds:
                os.close(fd)


def look(lengths: dict[Path, int | None]) -> None:
    """Notes how long each log is, and bounds it. One that cannot be written is left as it is.

    lengths: of the logs when they were looked at last; brought up to date.
    """
    for log, known in lengths.items():
        try:
            length = logfile.note_time(log, time.time(), known)
            if length != known:
                lengths[log] = length
                logfile.bound(log)
        except OSError:
            continue


def _bound_others(logs: Iterable[Path]) -> None:
    """The VMM's own words, which a guest may provoke as well (QEMU: `-d unimp`)."""
    for log in logs:
        try:
            logfile.bound(VmPaths(log.parent, log.parent).vmm_log)
        except OSError:
            continue


def _logs(vmm: Vmm) -> list[Path]:
    """Where a VMM writes down what its guest says: it stands in its command line, after `logfile=`."""
    try:
        words = os.fsdecode(Path(f"/proc/{vmm.pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []
    found = []
    for option, value in pairwise(words):
        if option == "-chardev" and ",logfile=" in value:
            # In a list of options a comma of a value is written twice.
            rest = value.partition(",logfile=")[2].replace(",,", "\0")
            found.append(Path(rest.partition(",")[0].replace("\0", ",")))
    return found


def _hold(lock: str) -> int | None:
    """The descriptor by which the lock is held, or None if another process holds it."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
