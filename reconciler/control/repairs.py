"""How often the same thing is done again because somebody undid it, and when that is no longer a help.

What is undone once is repaired at once. What keeps being undone is repaired after a growing delay, and then left alone
for a while: two who undo each other's work for ever would do harm to both. All times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Set
from dataclasses import dataclass, field

WINDOW_SECONDS = 600.0
MOST = 7
"""How often one step is done within the window, all in all."""

_FIRST_SECONDS = 2.0


@dataclass(slots=True)
class _Ledger:
    """One step of one object. `ends` are its successes within the window, `until` ends a contention."""

    ends: deque[float] = field(default_factory=deque)
    until: float | None = None
    most: int = MOST

    def prune(self, now: float) -> None:
        while self.ends and self.ends[0] <= now - WINDOW_SECONDS:
            self.ends.popleft()
            if not self.ends:
                self.most = MOST  # what was tried has lasted


class Repairs:
    """What was done in one environment, by object and step."""

    def __init__(self) -> None:
        self._ledgers: dict[str, dict[str, _Ledger]] = {}

    def succeeded(self, target: str, step: str, now: float) -> None:
        self._ledgers.setdefault(target, {}).setdefault(step, _Ledger()).ends.append(now)

    def planned(self, target: str, step: str, now: float) -> float:
        """When a step that a plan asks for may be done: `now`, later, or at the end of the contention.

        Call it only for a plan whose observation began after the step's last end: it takes the step for undone.
        """
        ledger = self._ledgers.get(target, {}).get(step)
        if ledger is None:
            return now
        if ledger.until is not None:
            if now < ledger.until:
                return ledger.until
            # One try, which has to last.
            ledger.until, ledger.most = None, 1
            ledger.ends.clear()
        ledger.prune(now)
        done = len(ledger.ends)
        if done >= ledger.most:
            ledger.until = now + WINDOW_SECONDS
            return ledger.until
        if done < 2:
            return now
        return max(now, ledger.ends[-1] + _FIRST_SECONDS * 2.0 ** (done - 2))

    def contended(self, target: str, now: float) -> float | None:
        """Until when the object is left alone; None if it is not."""
        ledgers = self._ledgers.get(target)
        if ledgers is None:
            return None
        return max((ledger.until for ledger in ledgers.values() if ledger.until and ledger.until > now), default=None)

    def all_contended(self, now: float) -> dict[str, float]:
        """Object → until when it is left alone."""
        found = {target: self.contended(target, now) for target in self._ledgers}
        return {target: until for target, until in found.items() if until is not None}

    def look(self, planned: Set[str], running: Collection[str], now: float) -> None:
        """Takes note of a new plan: drops what says nothing any more, except of objects that are being worked on."""
        for target, ledgers in list(self._ledgers.items()):
            if target in running:
                continue
            for step, ledger in list(ledgers.items()):
                ledger.prune(now)
                over = not ledger.ends if ledger.until is None else ledger.until <= now
                # Also a contention ends for good if others have mended it by then.
                if over and step not in planned:
                    del ledgers[step]
            if not ledgers:
                del self._ledgers[target]

    def forget(self, target: str | None) -> None:
        """None forgets all."""
        if target is None:
            self._ledgers.clear()
        else:
            self._ledgers.pop(target, None)
