"""Tells when rules of ours in the packet filter have changed, by whoever's hand.

The root helper answers when anybody's rules have. Others change theirs all the time (a container that starts does), so
ours are compared before anything is said; what is said is only when to look.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

from reconciler.drivers.network.connect import WatchingClient
from reconciler.helper.client import HelperLostError
from reconciler.helper.protocol import Refusal
from reconciler.lib.errors import BangerError

_PAUSE = 0.1  # seconds between two looks: others load their rules in many transactions
_AGAIN_FIRST, _AGAIN_LAST = 0.5, 60.0  # seconds


class RulesWatch:
    """One thread that waits for the helper's answer; no polling.

    Parameters
    ----------
    connect: makes a client of this object's own, which it closes; others would have to wait for its answers.
    changed: called, in the thread of this object, after rules of ours came, went or changed; what did so while it had
        no connection is told when there is one again.
    """

    def __init__(self, connect: Callable[[], WatchingClient], install: str, changed: Callable[[], None]) -> None:
        self._connect = connect
        self._install = install
        self._changed = changed
        self._lock = threading.Lock()
        self._client: WatchingClient | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self._known: dict[tuple[str, str], tuple[str, bool]] | None = None
        self._delay = _AGAIN_FIRST
        self._thread = threading.Thread(target=self._work, name="rules", daemon=True)

    def start(self) -> None:
        """May be repeated."""
        with self._lock:
            if self._thread.ident is None and not self._stopped:
                self._thread.start()

    def stop(self) -> None:
        """Returns when nothing more is reported: an answer that is waited for is given up. May be repeated."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            os.eventfd_write(self._wake, 1)
            client = self._client
        if client is not None:
            client.interrupt()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._wake)

    def _work(self) -> None:
        while not self._stopped:
            try:
                client = self._connect()
            except BangerError:
                self._rest()
                continue
            with self._lock:
                self._client = client
                if self._is_over():
                    client.interrupt()
            try:
                self._listen(client)
            except (HelperLostError, Refusal, BangerError):
                self._rest()
            finally:
                with self._lock:
                    self._client = None
                client.close()

    def _listen(self, client: WatchingClient) -> None:
        """Until it is stopped, or the connection is lost."""
        while not self._stopped:
            shown = client.show_rules(install=self._install)
            self._delay = _AGAIN_FIRST
            if self._known is not None and shown.rules != self._known:
                self._tell()
            self._known = dict(shown.rules)
            while not self._stopped:
                if client.watch_rules(install=self._install, generation=shown.generation) != shown.generation:
                    break
            self._wait(_PAUSE)

    def _is_over(self) -> bool:
        return self._stopped

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception:
            # The next change is still to be told.
            sys.excepthook(*sys.exc_info())

    def _rest(self) -> None:
        self._wait(self._delay)
        self._delay = min(_AGAIN_LAST, self._delay * 2)

    def _wait(self, seconds: float) -> None:
        """But no longer than until it is told to stop."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(seconds * 1000)
