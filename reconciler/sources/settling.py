"""When a file's content counts: once it is whole, and has stood for a moment. Reads files; knows no watches or threads.

    nothing new ──▶ a new content, nobody writing ──(stands for a moment)──▶ told
                ──▶ somebody is writing ──(nobody any more)──▶ as above
                ──▶ no content ──(stays so)──▶ the problem is told

A writer that closes a file and opens it again to go on looks like one that has finished; standing for a moment tells
them apart where the lease of `reading` cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.sources.reading import Busy, Failed, Signature, Whole, read, signature

GRACE = 2.0  # seconds: editors take a file away and put it back
PATIENCE = 30.0  # seconds, after which a save that does not end is told of
_LONGEST_NAP = 2.0  # seconds
_GONE = "is gone"


@dataclass(frozen=True, slots=True)
class Content:
    """What a source found in a file.

    Parameters
    ----------
    path: the file, as it was named; symbolic links are not resolved.
    data: its bytes, or None if it is missing or unreadable.
    problem: why there is no data, as what one would say after the file's name; else None.
    digest: SHA-256 of the data, 64 hexadecimal digits, or None.
    """

    path: Path
    data: bytes | None
    problem: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    found: Whole | Failed
    since: float
    due: float

    @property
    def signature(self) -> Signature | None:
        return self.found.signature if isinstance(self.found, Whole) else None


class Watched:
    """One file and what was last told of it. Times are monotonic seconds.

    Parameters
    ----------
    settle: how long a content has to stand, if nobody can have been writing it; longer if that is not known.
    """

    def __init__(self, path: Path, settle: float) -> None:
        self.path = path
        self.due: float | None = None
        """When to look again without a reason; None: not before there is one."""
        self.told: Content | None = None
        self.over = False
        """Whether it is not there, and nobody was told of it who was not told of that, too."""
        self._settle = settle
        self._size = 0  # of the content that was told last
        self._known: Signature | None = None
        self._candidate: _Candidate | None = None
        self._restless: float | None = None  # since when no content has stood
        self._nap = settle

    def look(self, now: float, *, thorough: bool = False) -> Content | None:
        """Looks at the file; what is to be told of it, if anything.

        `thorough` reads it even if stat(2) says that nothing has changed.
        """
        seen = signature(self.path)
        candidate = self._candidate
        if seen is not None and not thorough:
            if candidate is None and self._restless is None and seen == self._known:
                return None
            if candidate is not None and seen == candidate.signature and now < candidate.due:
                return None
        found = read(self.path)
        self.over = self.over and isinstance(found, Failed) and found.missing
        match found:
            case Busy():
                return self._busy(now)
            case Failed():
                return self._failed(found, now)
            case Whole():
                return self._whole(found, now)

    def _busy(self, now: float) -> Content | None:
        if self._known is not None and signature(self.path) == self._known:
            # Somebody has it open, and has written nothing so far.
            self._candidate, self._restless, self.due = None, None, None
            return None
        if self._restless is None:
            self._restless, self._nap = now, self._settle
        self._candidate = None
        self.due = now + self._nap
        self._nap = min(_LONGEST_NAP, self._nap * 2)
        if now - self._restless < PATIENCE:
            return None
        return self._tell(Content(self.path, None, "is being written, and counts once that has ended", None))

    def _failed(self, found: Failed, now: float) -> Content | None:
        self._known, self._restless = None, None
        candidate = self._candidate
        since = candidate.since if candidate is not None and isinstance(candidate.found, Failed) else now
        self._candidate = _Candidate(found, since, since + GRACE)
        if now < since + GRACE:
            self.due = since + GRACE
            return None
        self.due = None
        if found.missing and self.over:
            return None
        self.over = found.missing
        gone = found.missing and self.told is not None
        return self._tell(Content(self.path, None, _GONE if gone else found.problem, None))

    def _whole(self, found: Whole, now: float) -> Content | None:
        candidate = self._candidate
        if (
            candidate is None
            and found.signature == self._known
            and self.told is not None
            and self.told.data == found.data
        ):
            self.due, self._restless = None, None
            return None
        if candidate is None or candidate.found != found:
            if self._restless is None:
                self._restless = now
            self._candidate = candidate = _Candidate(found, now, now + self._standing(found))
        if now < candidate.due:
            self.due = candidate.due
            if self._restless is None or now - self._restless < PATIENCE:
                return None
            return self._tell(Content(self.path, None, "is written again and again, and counts once it stands", None))
        self._candidate, self._restless, self.due = None, None, None
        self._known, self._size = found.signature, len(found.data)
        return self._tell(Content(self.path, found.data, None, found.digest))

    def _standing(self, found: Whole) -> float:
        """How long this content has to stand, in seconds."""
        if not found.data:
            return GRACE  # what a save that begins with truncation leaves for a moment
        if found.proven:
            return self._settle
        return GRACE if len(found.data) < self._size else 2 * self._settle

    def _tell(self, content: Content) -> Content | None:
        if content == self.told:
            return None
        self.told = content
        return content
