"""Which key is looked at next, and when. Holds times only: whoever uses it says what time it is, and locks."""

from __future__ import annotations


class KeyQueue:
    """A deduplicating queue of keys with delays, in the manner of client-go's workqueue.

    A key that is queued twice is given out once, at the earlier time. A key that is busy is not given out; what is
    asked of it meanwhile counts once it no longer is. All times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._later: dict[str, float] = {}
        """The same for busy keys."""
        self._busy: dict[str, int] = {}
        self._floor: dict[str, float] = {}
        """Not before this."""
        self._asked: set[str] = set()

    def poke(self, key: str, at: float, *, asked: bool = True) -> None:
        """Queues `key` for the time `at`.

        asked: somebody wants an answer; not so with what a timer brings round.
        """
        if asked:
            self._asked.add(key)
        if key in self._busy:
            self._later[key] = min(at, self._later.get(key, at))
            return
        at = max(at, self._floor.get(key, at))
        self._due[key] = min(at, self._due.get(key, at))

    def take(self, now: float) -> str | None:
        """The key that has been due for longest, which is busy from here on until `rest`; None if none is due."""
        if not self._due:
            return None
        key = min(self._due, key=self._due.__getitem__)
        if self._due[key] > now:
            return None
        del self._due[key]
        self._busy[key] = 1
        self._asked.discard(key)
        return key

    def hold(self, key: str) -> None:
        """Makes `key` busy, or busy once more; each `hold` has its `rest`."""
        self._busy[key] = self._busy.get(key, 0) + 1
        if key in self._due:
            self._later[key] = self._due.pop(key)

    def rest(self, key: str) -> None:
        """The other end of `take` and of `hold`."""
        self._busy[key] -= 1
        if self._busy[key]:
            return
        del self._busy[key]
        if key in self._later:
            at = self._later.pop(key)
            self._due[key] = max(at, self._floor.get(key, at))

    def not_before(self, key: str, at: float | None) -> None:
        """Gives `key` out at `at` at the earliest, whoever asks before; None takes that back for all that follows."""
        if at is None:
            self._floor.pop(key, None)
        else:
            self._floor[key] = at

    def next_due(self) -> float | None:
        """When `take` will give out a key if nobody queues another one."""
        return min(self._due.values(), default=None)

    def asked(self, key: str) -> bool:
        """Whether somebody waits for a look at `key` that has not begun."""
        return key in self._asked

    def keys(self) -> list[str]:
        """All keys that are queued."""
        return [*self._due, *self._later]

    def drop(self, key: str) -> None:
        """Forgets a key that is not busy."""
        self._due.pop(key, None)
        self._floor.pop(key, None)
        self._asked.discard(key)

    def __contains__(self, key: str) -> bool:
        return key in self._due or key in self._busy
