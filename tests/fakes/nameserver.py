"""A nameserver that says what a test wants, and a client that asks ours. Both speak through dnspython."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.granting import Allow
from reconciler.drivers.network.dns.server import Server
from reconciler.drivers.network.dns.upstreams import Upstreams
from reconciler.drivers.network.dns.zone import Zone

Handler = Callable[[dns.message.Message, bool], "list[bytes]"]
"""Question, whether over TCP; gives the datagrams, or the one message, that go back."""

SECONDS = 20.0
"""How long a test waits for what must come."""


def answering(*records: str, rcode: str = "NOERROR", flags: int = 0) -> Handler:
    """Answers every question with these records, as zone files have them."""

    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.from_text(rcode))
        response.flags |= flags
        for text in records:
            name, ttl, kind, value = text.split(" ", 3)
            response.answer.append(dns.rrset.from_text(name.rstrip(".") + ".", int(ttl), "IN", kind, value))
        return [response.to_wire(max_size=65535)]

    return handle


def silent(query: dns.message.Message, tcp: bool) -> list[bytes]:
    return []


class FakeNameserver:
    """Listens on a loopback address, UDP and TCP, until it is closed; `seen` are the questions, oldest first."""

    def __init__(self, handle: Handler, host: str = "127.0.0.1", port: int = 0) -> None:
        self.handle = handle
        self.host = host
        self.seen: list[dns.message.Message] = []
        self.sources: list[tuple[str, int]] = []
        self.over_tcp = 0
        self.frame: Callable[[bytes], bytes] = lambda answer: len(answer).to_bytes(2, "big") + answer
        self.udp, self.tcp = bound(host, port)
        self.port = int(self.udp.getsockname()[1])
        self.tcp.listen()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._datagrams, self._connections)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for channel in (self.udp, self.tcp):
            try:
                channel.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # a socket for datagrams says so, and is woken all the same
        for thread in self._threads:
            thread.join(SECONDS)
        self.udp.close()
        self.tcp.close()

    def _datagrams(self) -> None:
        while True:
            wire, source = self.udp.recvfrom(4096)
            if not wire:
                return
            self.sources.append(source)
            for answer in self._answers(wire, tcp=False):
                self.udp.sendto(answer, source)

    def _connections(self) -> None:
        while True:
            try:
                channel, _ = self.tcp.accept()
            except OSError:
                return
            with channel:
                self.over_tcp += 1
                length = int.from_bytes(channel.recv(2, socket.MSG_WAITALL), "big")
                for answer in self._answers(channel.recv(length, socket.MSG_WAITALL), tcp=True):
                    channel.sendall(self.frame(answer))

    def _answers(self, wire: bytes, *, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(wire)
        self.seen.append(query)
        return self.handle(query, tcp)


def bound(host: str = "127.0.0.1", port: int = 0) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port, one that is free by default."""
    while True:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((host, port))
        try:
            tcp.bind((host, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
            continue  # somebody has that one for TCP
        return udp, tcp


class Asking:
    """A running server of ours, with one endpoint, and ways to ask it."""

    def __init__(self, server: Server, port: int, said: list[str]) -> None:
        self.server, self.port, self.said = server, port, said

    def udp(self, name: str, kind: str = "A", **more: object) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
        return dns.query.udp(query, "127.0.0.1", SECONDS, self.port)

    def tcp(self, name: str, kind: str = "A") -> dns.message.Message:
        return dns.query.tcp(dns.message.make_query(name, kind), "127.0.0.1", SECONDS, self.port)

    def wire(self, query: dns.message.Message) -> bytes:
        """The datagram that comes back."""
        with socket.socket(type=socket.SOCK_DGRAM) as channel:
            channel.settimeout(SECONDS)
            channel.connect(("127.0.0.1", self.port))
            channel.send(query.to_wire())
            return channel.recv(65535)

    def raw(self, wire: bytes) -> bytes | None:
        """What comes back for these bytes; None if what is sent after them is answered first.

        For what is answered at once: what others are asked about is overtaken.
        """
        with socket.socket(type=socket.SOCK_DGRAM) as channel:
            channel.settimeout(SECONDS)
            channel.connect(("127.0.0.1", self.port))
            channel.send(wire)
            marker = dns.message.make_query("marker.vm", "A", id=4711)
            channel.send(marker.to_wire())
            answer = channel.recv(65535)
            try:
                is_marker = marker.is_response(dns.message.from_wire(answer))
            except Exception:
                is_marker = False
            return None if is_marker else answer


def refusing(entry: str, addresses: tuple[object, ...], seconds: int) -> None:
    raise AssertionError(f"nobody is to be let through to {addresses}")


@contextmanager
def asking(
    access: Access,
    zone: Callable[[], Zone] = Zone,
    *,
    folder: Path | None = None,
    upstreams: tuple[str, ...] = (),
    port: int = 53,
    allow: Allow = refusing,
) -> Iterator[Asking]:
    """Our server on a free port of loopback, which asks `upstreams` at `port` about other names."""
    files = []
    if folder is not None:
        files.append(folder / "resolv.conf")
        files[0].write_text("".join(f"nameserver {host}\n" for host in upstreams))
    said: list[str] = []
    server = Server(zone, said.append, upstreams=Upstreams(files=files, port=port))
    udp, tcp = bound()
    server.start()
    try:
        server.open("test", udp, tcp, access, allow)
        yield Asking(server, udp.getsockname()[1], said)
    finally:
        server.stop()


def addresses(response: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in response.answer for record in rrset]


def rcode(response: dns.message.Message) -> str:
    return dns.rcode.to_text(response.rcode())


def truncated(response: dns.message.Message) -> bool:
    return bool(response.flags & dns.flags.TC)
