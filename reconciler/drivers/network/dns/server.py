"""The name server: its sockets, its thread, and what is wired to what."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.answering import Answering
from reconciler.drivers.network.dns.forwarding import Forwarder
from reconciler.drivers.network.dns.granting import Allow, Granter
from reconciler.drivers.network.dns.loop import READ, Loop
from reconciler.drivers.network.dns.message import QUERY_MOST
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.streams import Streams
from reconciler.drivers.network.dns.upstreams import Upstreams
from reconciler.drivers.network.dns.zone import Zone

LOOPBACK = Access(sources=(IPv4Network("127.0.0.0/8"),))
"""For the host: our names, and no others, for which it has its own servers, which may well be asking us."""

_AT_ONCE = 64
_BACKLOG = 64
_BUFFER = 1 << 20  # bytes
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_STOP_SECONDS = 5.0
_PAUSE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Endpoint:
    """A pair of bound sockets, and what is done for those who ask there."""

    udp: socket.socket
    tcp: socket.socket
    access: Access
    allow: Allow


class Server:
    """One thread that answers on any number of sockets. The other methods are for any other thread.

    Parameters
    ----------
    zone: the names as they are now; asked for, in the thread of this object, with every question.
    say: gets a sentence about what goes wrong, now and then.
    upstreams: whom to ask about other names; the host's servers by default, but for our own sockets.
    """

    def __init__(
        self, zone: Callable[[], Zone], say: Callable[[str], None], *, upstreams: Upstreams | None = None
    ) -> None:
        self._reports = Reports(say)
        self._loop = Loop(lambda problem: self._reports.report("failure", f"a DNS packet was dropped: {problem!r}"))
        forwarder = Forwarder(self._loop, upstreams or Upstreams(self._own), self._reports)
        self._forwarder = forwarder
        self._granter = Granter(self._loop.call, self._reports)
        self._answering = Answering(zone, forwarder, self._granter, self._reports)
        self._streams = Streams(self._loop)
        self._endpoints: dict[str, _Endpoint] = {}
        self._hosts: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes every socket. May be repeated."""
        self._loop.stop()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        self._granter.stop()

    def open(self, key: str, udp: socket.socket, tcp: socket.socket, access: Access, allow: Allow) -> None:
        """Answers on these sockets, which are bound and become this object's; those that `key` had are closed."""
        for channel in (udp, tcp):
            channel.setblocking(False)
        # What comes while this thread waits for a processor: at 2,000 a second the usual buffer is full in 0.1 s.
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        try:
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except OSError:
            pass  # only root may have more than net.core.rmem_max
        tcp.listen(_BACKLOG)
        endpoint = _Endpoint(udp, tcp, access, allow)

        def begin() -> None:
            self._shut(key)
            self._endpoints[key] = endpoint
            self._note_hosts()
            self._loop.watch(udp, READ, lambda: self._datagrams(endpoint))
            self._listen(endpoint)

        if not self._call(begin):
            udp.close()
            tcp.close()

    def change(self, key: str, access: Access) -> None:
        """From the next question on, `access` counts there."""

        def change() -> None:
            if key in self._endpoints:
                self._endpoints[key].access = access

        self._call(change)

    def close(self, key: str) -> None:
        """Returns when the sockets are closed, and others may be bound to the same address."""
        self._call(lambda: self._shut(key))

    def _call(self, what: Callable[[], None]) -> bool:
        """Has the loop do it, and waits until it has."""
        done = threading.Event()

        def act() -> None:
            try:
                what()
            finally:
                done.set()

        return self._loop.call(act) and done.wait(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run()
        finally:
            self._forwarder.close()
            for key in list(self._endpoints):
                self._shut(key)
            self._streams.close()

    def _shut(self, key: str) -> None:
        endpoint = self._endpoints.pop(key, None)
        if endpoint is not None:
            self._streams.close(endpoint.tcp)
            for channel in (endpoint.udp, endpoint.tcp):
                self._loop.forget(channel)
                channel.close()
            self._note_hosts()

    def _note_hosts(self) -> None:
        self._hosts = frozenset(str(endpoint.udp.getsockname()[0]) for endpoint in self._endpoints.values())

    def _own(self, host: str) -> bool:
        """Whether that address is a gateway of ours; on loopback there may be others."""
        return host in self._hosts and not host.startswith("127.")

    def _datagrams(self, endpoint: _Endpoint) -> None:
        for _ in range(_AT_ONCE):
            try:
                wire, address = endpoint.udp.recvfrom(QUERY_MOST + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier answer ran into
            if len(wire) <= QUERY_MOST and endpoint.access.admits(address[0]):
                self._answering.answer(wire, address[0], endpoint.access, endpoint.allow, _Reply(endpoint.udp, address))

    def _connection(self, endpoint: _Endpoint) -> None:
        def asked(wire: bytes, client: str, send: Callable[[bytes | None], None]) -> None:
            self._answering.answer(wire, client, endpoint.access, endpoint.allow, send, tcp=True)

        try:
            self._streams.accept(endpoint.tcp, endpoint.access.admits, asked)
        except OSError as problem:
            # It stays at the door, and would be announced for ever.
            self._reports.report("accept", f"DNS over TCP takes nobody in: {problem.strerror}")
            self._loop.forget(endpoint.tcp)
            self._loop.later(_PAUSE_SECONDS, lambda: self._listen(endpoint))

    def _listen(self, endpoint: _Endpoint) -> None:
        if endpoint in self._endpoints.values():
            self._loop.watch(endpoint.tcp, READ, lambda: self._connection(endpoint))


@dataclass(frozen=True, slots=True)
class _Reply:
    """The way back to who sent a datagram. It may be gone, or full: then he asks again."""

    channel: socket.socket
    address: tuple[str, int]

    def __call__(self, wire: bytes | None) -> None:
        if wire is None:
            return
        try:
            self.channel.sendto(wire, self.address)
        except OSError:
            pass
