"""How fast this host's time stamp counter ticks, which is how fast an emulated guest's does.

QEMU's TCG answers the guest's RDTSC with the host's own counter (cpu_get_host_ticks, include/qemu/timer.h). A guest
that takes it for slower or faster lives in a time of its own: with a third of the true rate its seconds, its timeouts
and its periodic tick all run three times too fast. The kernel tells the rate to root only, so it is measured.
"""

from __future__ import annotations

import mmap
import platform
import time
from collections.abc import Callable

_RDTSC = bytes.fromhex(
    "0f31"  # rdtsc
    "48c1e220"  # shl rdx, 32
    "4809d0"  # or rax, rdx
    "c3"  # ret
)
_SPAN_NS = 10_000_000
_TRIES = 50


def host_tsc_khz() -> int | None:
    """The rate in kHz, right to a few in a million; None where there is no such counter, or no running of own code.

    Takes 10 ms, most of it waiting.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    # Late: only who starts an emulated guest pays for it.
    import ctypes  # noqa: PLC0415

    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None  # a policy against writable code, under which TCG could not run either
    page.write(_RDTSC)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    began, first = _sample(read)
    while time.monotonic_ns() - began < _SPAN_NS:
        time.sleep(_SPAN_NS / 1e9)
    ended, last = _sample(read)
    return round((last - first) * 1_000_000 / (ended - began))


def _sample(read: Callable[[], int]) -> tuple[int, int]:
    """Nanoseconds and ticks of one moment: of several readings the one that was disturbed least."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        ticks = read()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, ticks)
    assert best is not None
    return best[1], best[2]
