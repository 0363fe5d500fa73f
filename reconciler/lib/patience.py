"""How often a booting guest is asked whether it is ready, and how long its answer may take. Pure."""

from __future__ import annotations

_SHORT_PROBES = 5
_SHORT = 3.0
_LONG = 10.0
_SHARE = 1 / 50
_LEAST = 0.05
_MOST = 0.5


def patience(attempt: int) -> float:
    """Seconds for a guest's nth probe: short while it may just be booting, then longer each time.

    A guest on a crowded host may need seconds to answer; given up each time before it does, it never would.
    """
    return min(_LONG, _SHORT + 0.5 * max(0, attempt - _SHORT_PROBES))


def pause(waited: float) -> float:
    """Seconds until the next probe of a guest that was waited for so many seconds.

    Before its server listens, a guest's kernel has to refuse each probe. An emulated one that is asked without a pause
    boots in three times the time; one that boots in a second is not to be noticed late.
    """
    return min(_MOST, max(_LEAST, waited * _SHARE))
