"""The process's one connection to the root helper, which everything that it does shares."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from reconciler.lib.paths import Paths

if TYPE_CHECKING:
    from reconciler.drivers.network.connect import WatchingClient
    from reconciler.helper.client import HelperClient
    from reconciler.model.observed_links import Filter


class SharedHelper:
    """Opened by the first who needs it: as root that starts a process, which a command without networks never pays for."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._client: HelperClient | None = None

    def client(self) -> HelperClient:
        """Raises BangerError if there is no helper, or this user may not use it; the next call tries again."""
        with self._lock:
            if self._client is None:
                self._client = self.open()
            return self._client

    def open(self) -> HelperClient:
        """A connection of its own, for who would keep the others waiting. Close it."""
        from reconciler.drivers.network import connect  # noqa: PLC0415  # most commands do without

        return connect.open_helper(log=self._paths.state / "helper.log")

    def open_watching(self) -> WatchingClient:
        """Likewise, for who waits for an answer that may not come for long."""
        from reconciler.drivers.network import connect  # noqa: PLC0415  # likewise

        return connect.open_watching(log=self._paths.state / "helper.log")

    def read_filter(self, install: str) -> Filter:
        """The packet filter's rules of an installation. Raises BangerError: they are unknown then, not absent."""
        from reconciler.drivers.network.filter_probe import read_filter  # noqa: PLC0415  # likewise

        return read_filter(self.client(), install)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
