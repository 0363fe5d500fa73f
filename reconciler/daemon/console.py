"""`banger console`, in the process of the command line: the guest's serial line is its terminal's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.api.service import VmRef, WayIn
from reconciler.drivers.vmm import serial
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths


@contextmanager
def attached(way: WayIn, ref: VmRef) -> Iterator[socket.socket]:
    """The serial line of a running VM. Raises BangerError if somebody has it, or there is none."""
    try:
        with serial.attached(VmPaths(way.root, way.run), str(ref)) as line:
            yield line
    except (FileNotFoundError, ConnectionRefusedError) as problem:
        raise BangerError(
            f"vm {ref} has no console: {problem.strerror}", hint=f"it may just have ended: banger vm start {ref}"
        ) from None
