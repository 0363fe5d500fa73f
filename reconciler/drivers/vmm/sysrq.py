"""The emergency sync of a Linux guest that does not shut down: magic SysRq over its serial line.

A BREAK followed by a key within five seconds is a SysRq on a serial console (Linux:
Documentation/admin-guide/sysrq.rst). Each key waits for what the kernel prints about it, because a second BREAK
before the key cancels the first. The line has room for one: a console that is attached is told to go.
"""

from __future__ import annotations

import socket
import time

from reconciler.drivers.vmm import serial
from reconciler.drivers.vmm.cmdline import SERIAL
from reconciler.drivers.vmm.qmp import Qmp, QmpCommandError, QmpError
from reconciler.lib.paths import VmPaths

_KEYS = (
    # Under `quiet` the guest would not say when the others are done: all messages to the console.
    (b"9", b"sysrq: "),
    # Starts writing everything back. It is "complete" while ext4's journal may still be committing (fs/sync.c,
    # do_sync_work, does not wait for it), so it is not enough.
    (b"s", b"Emergency Sync complete"),
    # Read-only remounting does wait, and leaves the file systems clean.
    (b"u", b"Emergency Remount complete"),
)
_WINDOW = 4096


def emergency_sync(paths: VmPaths, seconds: float) -> bool:
    """Has the guest's kernel write everything back and stop writing; True only if it said that it did.

    Parameters
    ----------
    seconds: what a console that is attached gets to go, and the kernel to answer each of the three keys.
    """
    try:
        with serial.take_over(paths, seconds) as line:
            return all(_press(paths, line, key, echo, seconds) for key, echo in _KEYS)
    except (OSError, QmpError, QmpCommandError):
        return False


def _press(paths: VmPaths, line: socket.socket, key: bytes, echo: bytes, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    with Qmp(paths.qmp, seconds) as qmp:
        qmp.execute("chardev-send-break", id=SERIAL)
    line.sendall(key)
    seen = b""
    while echo not in seen:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        line.settimeout(left)
        data = line.recv(_WINDOW)
        if not data:
            return False
        seen = (seen + data)[-_WINDOW:]
    return True
