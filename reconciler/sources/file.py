"""A specification file, or a directory of them, that is watched: every new content is told of, once and whole.

inotify(7) says when to look, through watchdog; what counts is what the file then holds (`settling`). Events get lost,
so a timer looks, too: whatever happens to the watches, a content is found within its period. watchdog's observers hold
a rename back for half a second to pair its two events, and queue without bounds, so this takes the layer below them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from reconciler.lib.clock import Clock
from reconciler.sources.settling import Content, Watched
from reconciler.sources.trail import directories

__all__ = ["Content", "FileSource"]

# No reads, which would be our own, and no writes but the last: until then the file does not count.
_MASK = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
_SPACING = 0.02  # seconds from an event to a look: events come in bursts
_FLOOD = 5000  # events in a second; above this, looking now and then is cheaper
_EBB = 2.0  # seconds without watches after a flood
_FLOOD_PERIOD = 0.25  # seconds between two looks meanwhile
_BLIND_PERIOD = 1.0  # seconds between two looks if a directory cannot be watched
_THOROUGH = 10  # of so many looks by the timer, one reads the files


class FileSource:
    """Watches a file, or the `*.yaml` files of a directory that are not hidden.

    Parameters
    ----------
    path: what to watch; it need not exist.
    changed: called with each new content, in this object's one thread. What a file holds at the start is told, too.
        The same content is not told twice, nor is a problem that has not lasted for two seconds.
    clock: its monotonic time decides when contents have stood.
    settle: seconds that a content has to stand.
    rescan: seconds after which the files are looked at without any event.
    directory: whether the path is a directory; by default, what it is now.
    """

    def __init__(
        self,
        path: Path,
        changed: Callable[[Content], None],
        *,
        clock: Clock,
        settle: float = 0.1,
        rescan: float = 30.0,
        directory: bool | None = None,
    ) -> None:
        self._path = path.absolute()
        self._name = path
        self._changed = changed
        self._clock = clock
        self._settle = settle
        self._rescan = rescan
        self._directory = path.is_dir() if directory is None else directory
        self._files: dict[Path, Watched] = {} if self._directory else {path: Watched(path, settle)}
        self._listing_problem: str | None = None
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._poked = False
        self._watches = _Watches(self._woken.set)
        self._thread = threading.Thread(target=self._work, name=f"source {path.name}", daemon=True)

    @property
    def problem(self) -> str | None:
        """What keeps this from seeing every change at once: a limit on watches, or a directory that is missing."""
        return self._listing_problem or self._watches.problem

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing more is told. May be repeated."""
        self._ended.set()
        self._woken.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def poke(self) -> None:
        """Reads every file again, now."""
        self._poked = True
        self._woken.set()

    def _work(self) -> None:
        scans = 0
        scan_at = self._clock.monotonic() + self._rescan
        try:
            while not self._ended.is_set():
                self._woken.clear()
                now = self._clock.monotonic()
                thorough = self._poked
                if thorough:
                    self._poked = False  # only what was seen: another poke may come in between
                if now >= scan_at:
                    scans, scan_at = scans + 1, now + self._rescan
                    if scans % _THOROUGH == 0:
                        thorough = True
                        self._watches.close()  # and opened again: whatever was wrong with them
                # The watches first: what changes after the look is then an event.
                self._watches.cover(self._directories(), now)
                for content in self._look(now, thorough):
                    self._tell(content)
                due = [watched.due for watched in self._files.values() if watched.due is not None]
                until = min([scan_at, *due])
                if self._watches.period is not None:
                    until = min(until, now + self._watches.period)
                if self._woken.wait(max(0.0, until - self._clock.monotonic())):
                    self._ended.wait(_SPACING)
        finally:
            self._watches.close()

    def _look(self, now: float, thorough: bool) -> Iterator[Content]:
        if self._directory:
            for path in self._listed():
                self._files.setdefault(path, Watched(path, self._settle))
        for path, watched in list(self._files.items()):
            unheard = watched.told is None
            content = watched.look(now, thorough=thorough)
            if self._directory and watched.over:
                del self._files[path]
                if unheard:
                    continue  # an editor's file, there for a moment
            if content is not None:
                yield content

    def _listed(self) -> Iterator[Path]:
        try:
            with os.scandir(self._path) as entries:
                names = [entry.name for entry in entries]
        except OSError as problem:
            # What is known stays: each file is asked for itself.
            self._listing_problem = f"cannot list {self._name}: {problem.strerror}"
            return
        self._listing_problem = None
        for name in sorted(names):
            if name.endswith(".yaml") and not name.startswith((".", "#")):
                yield self._name / name

    def _directories(self) -> Iterator[Path]:
        if self._directory:
            yield from directories(self._path / "*")
        for path in self._files:
            if not self._directory or path.is_symlink():
                yield from directories(path)

    def _tell(self, content: Content) -> None:
        try:
            self._changed(content)
        except Exception:
            # The next content is still to be told.
            sys.excepthook(*sys.exc_info())


class _Watches:
    """inotify(7) on those directories whose entries matter now. Used by one thread; its events come in another.

    Parameters
    ----------
    woken: called for every event.
    """

    def __init__(self, woken: Callable[[], None]) -> None:
        self.problem: str | None = None
        """Why a directory is not watched; None if all are."""
        self.period: float | None = None
        """Seconds after which to look, because no event may come; None if events come."""
        self._woken = woken
        self._id = CallbackId(id(self))
        self._lock = threading.Lock()
        self._inotify: InotifyFD | None = None
        self._armed: dict[tuple[int, int], WatchDescriptor] = {}  # by device and inode
        self._lost = False
        self._events = 0
        self._since = 0.0
        self._dry_until = 0.0

    def cover(self, wanted: Iterable[Path], now: float) -> None:
        """Watches these directories, which hold no symbolic links in their paths, and no others."""
        if now < self._dry_until:
            return
        if now - self._since >= 1:
            self._since, self._events = now, 0
        elif self._events > _FLOOD:
            self.close()
            self._dry_until, self.period = now + _EBB, _FLOOD_PERIOD
            return
        if self._inotify is not None and (self._lost or not self._inotify.is_alive()):
            self.close()
        self.problem = None
        found: set[tuple[int, int]] = set()
        try:
            for path in wanted:
                self._arm(path, found)
        except OSError as problem:
            self.problem = f"cannot watch files, looks at them instead: {problem.strerror}"
        self._release(found)
        self.period = None if self.problem is None else _BLIND_PERIOD

    def _arm(self, path: Path, found: set[tuple[int, int]]) -> None:
        """Raises OSError if there are no more watches or instances (inotify(7), /proc interfaces)."""
        try:
            state = path.stat()
        except OSError as problem:
            self.problem = f"cannot watch {path}: {problem.strerror}"
            return
        key = state.st_dev, state.st_ino
        found.add(key)
        with self._lock:
            if key in self._armed:
                return
        if not os.access(path, os.R_OK):
            # watchdog does not report this one.
            self.problem = f"cannot watch {path}: Permission denied"
            return
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.start()
        # Under the lock: its end may be told while it is being noted.
        with self._lock:
            self._armed[key] = self._inotify.add_callback(os.fsencode(path), _MASK, self, self._id)

    def _release(self, found: set[tuple[int, int]]) -> None:
        with self._lock:
            gone = [self._armed.pop(key) for key in list(self._armed) if key not in found]
        if self._inotify is not None and gone:
            self._inotify.remove_callbacks([(descriptor, self._id) for descriptor in gone])

    def close(self) -> None:
        """Gives every watch back."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.stop()
            inotify.join()
        with self._lock:
            self._armed.clear()
        self._events, self._lost = 0, False

    def on_event(self, event: InotifyEvent) -> None:
        self._events += 1
        self._woken()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        with self._lock:
            for key, descriptor in list(self._armed.items()):
                if descriptor == wd:
                    del self._armed[key]
        self._woken()

    def on_queue_overflow(self) -> None:
        # The end of a watch may be among what was lost.
        self._lost = True
        self._woken()
