"""Tells when a VMM has ended, at once and without looking: a pidfd becomes readable then (pidfd_open(2), epoll(7)).

A VMM is told by its start time too, so a pid that was used again is never taken for it. The report is a key and no
more; what became of the VM is for the next observation to see.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError, ErrorClass


class ExitWatch:
    """One thread over the pidfds of any number of VMMs, each of which costs a file descriptor.

    Parameters
    ----------
    changed: called with the key of a VMM that has ended, once, in the thread of this object. It may call back.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watched: dict[str, tuple[Vmm, int | None]] = {}  # the pidfd is None once the end was told
        self._keys: dict[int, str] = {}
        self._ended: list[str] = []  # found ended when their watch began
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="exits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing more is reported, and every descriptor is closed. May be repeated."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            for fd in self._keys:
                os.close(fd)
            self._keys.clear()
            self._watched.clear()
            self._epoll.close()
            os.close(self._wake)

    def watch(self, key: str, vmm: Vmm) -> None:
        """Watches a VMM under a key, in place of another one that had the key. The same again changes nothing.

        One that has ended by now is reported at once, by the other thread. Raises BangerError (retryable) if there
        is no descriptor left.
        """
        with self._lock:
            if self._stopped or self._watched.get(key, (None,))[0] == vmm:
                return
            try:
                fd = probe.pidfd(vmm)
            except OSError as problem:
                raise BangerError(
                    f"cannot watch process {vmm.pid}: {problem.strerror}",
                    hint="each running VM takes one open file: raise the limit (ulimit -n, LimitNOFILE=)",
                    error_class=ErrorClass.RETRYABLE,
                ) from None
            self._drop(key)
            self._watched[key] = vmm, fd
            if fd is None:
                self._ended.append(key)
                os.eventfd_write(self._wake, 1)
            else:
                self._keys[fd] = key
                self._epoll.register(fd, select.EPOLLIN)

    def forget(self, key: str) -> None:
        """Watches this key no more; one that is not watched is fine."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        _, fd = self._watched.pop(key, (None, None))
        if key in self._ended:
            self._ended.remove(key)
        self._close(fd)

    def _close(self, fd: int | None) -> None:
        if fd is not None:
            del self._keys[fd]
            self._epoll.unregister(fd)
            os.close(fd)

    def _work(self) -> None:
        while True:
            ready = self._epoll.poll()
            for key in self._reap([fd for fd, _ in ready]):
                try:
                    self._changed(key)
                except Exception:
                    # The other VMs are still to be watched.
                    sys.excepthook(*sys.exc_info())
            if self._stopped:
                return

    def _reap(self, ready: list[int]) -> list[str]:
        with self._lock:
            if self._stopped:
                return []
            ended, self._ended = self._ended, []
            for fd in ready:
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                    continue
                key = self._keys.get(fd)
                # Since the poll, another thread may have closed it, and another process's may have its number.
                if key is None or not probe.wait(fd, 0):
                    continue
                self._watched[key] = self._watched[key][0], None
                self._close(fd)
                ended.append(key)
            return ended
