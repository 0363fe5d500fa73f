"""Whom the host asks about names, and who of them has answered lately (resolv.conf(5))."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.drivers.network.resolvers import FILES, servers

PORT = 53
_MOST = 6
_SHUNNED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server to ask: `address` is what connect(2) takes for a socket of that `family`."""

    family: int
    address: tuple[str | int, ...]

    @property
    def host(self) -> str:
        return str(self.address[0])


class Upstreams:
    """The host's servers, in the order in which it makes sense to try them. For one thread.

    Parameters
    ----------
    files: the first one that names a server counts. They are read again when one of them has changed.
    excluded: tells of an address that it is our own, so that asking there would go in circles.
    """

    def __init__(
        self,
        excluded: Callable[[str], bool] = lambda host: False,
        *,
        files: Sequence[Path] = FILES,
        port: int = PORT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._excluded = excluded
        self._files = files
        self._port = port
        self._monotonic = monotonic
        self._seen: list[tuple[int, ...]] | None = None
        self._servers: tuple[Upstream, ...] = ()
        self._shunned: dict[Upstream, float] = {}

    def ordered(self) -> list[Upstream]:
        """Those that did not fail lately first, each group in the host's order. Empty if the host asks nobody."""
        seen = [_signature(path) for path in self._files]
        if seen != self._seen:
            self._seen = seen
            self._servers = servers(lambda text: _server(text, self._port), self._files)[:_MOST]
            self._shunned.clear()
        now = self._monotonic()
        usable = [server for server in self._servers if not self._excluded(server.host)]
        return sorted(usable, key=lambda server: self._shunned.get(server, 0.0) > now)

    def failed(self, server: Upstream) -> None:
        """It did not answer in time, or not at all: others are asked first, for a while."""
        self._shunned[server] = self._monotonic() + _SHUNNED_SECONDS

    def answered(self, server: Upstream) -> None:
        self._shunned.pop(server, None)


def _server(text: str, port: int) -> Upstream | None:
    try:
        # Takes a zone too (`fe80::1%eth0`), and looks up no name.
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found = socket.getaddrinfo(text, port, type=socket.SOCK_DGRAM, flags=flags)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, address = found[0]
    return Upstream(family, tuple(part for part in address if isinstance(part, str | int)))


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
