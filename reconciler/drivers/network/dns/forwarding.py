"""Questions about names that are not ours, asked of the host's own servers.

Each question goes out with a random id, from a socket of its own that the kernel gives a random port, connected to the
one server that may answer. What comes back without that id and that question is not looked at. A server that is silent,
or that failed, is followed by the next one; a truncated answer is fetched again over TCP. Nothing is kept: caching is
what the servers there do.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from reconciler.drivers.network.dns.loop import READ, WRITE, Loop, Timer
from reconciler.drivers.network.dns.message import Answer, Asked, Query
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.upstreams import Upstream, Upstreams

ATTEMPT_SECONDS = 1.2
"""How long one server may take, before the next one is asked."""
TOTAL_SECONDS = 4.5
"""Less than the 5 s after which most resolvers ask again (resolv.conf(5), `timeout`)."""
MOST = 256
"""Questions that are out at once; each is a descriptor."""
MOST_PER_CLIENT = 64

_ROUNDS = 2
_WRONG_MOST = 16
_LENGTH = 2
_BLOCK = 65535

Done = Callable[[Answer | None], None]


class Forwarder:
    """Asks others. For the loop's thread only."""

    def __init__(self, loop: Loop, upstreams: Upstreams, reports: Reports) -> None:
        self.loop = loop
        self.upstreams = upstreams
        self.reports = reports
        self._out: set[_Exchange] = set()
        self._by_client: Counter[str] = Counter()

    def __len__(self) -> int:
        """Questions that are out."""
        return len(self._out)

    def ask(self, query: Query, client: str, done: Done) -> None:
        """Calls `done` once, at once or later; with None if nobody answered, or too much is asked already."""
        if len(self._out) >= MOST or self._by_client[client] >= MOST_PER_CLIENT:
            self.reports.report("busy", f"too many questions are waiting for other servers; {client} gets no answer")
            done(None)
            return
        servers = self.upstreams.ordered()
        if not servers:
            self.reports.report("no upstream", "the host has no nameserver to ask about other names (resolv.conf)")
        self._by_client[client] += 1

        def ended(answer: Answer | None) -> None:
            self._out.discard(exchange)
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
            done(answer)

        exchange = _Exchange(self, query, servers * _ROUNDS, ended)
        self._out.add(exchange)
        exchange.next()

    def close(self) -> None:
        """Gives up what is out; nobody hears of it any more."""
        for exchange in list(self._out):
            exchange.let_go()
        self._out.clear()


class _Exchange:
    """One question, until it is answered or nobody is left to ask."""

    def __init__(self, forwarder: Forwarder, query: Query, servers: list[Upstream], ended: Done) -> None:
        self._loop = forwarder.loop
        self._upstreams = forwarder.upstreams
        self._query = query
        self._servers = iter(servers)
        self._ended = ended
        self._deadline = self._loop.later(TOTAL_SECONDS, lambda: self._end(self._last))
        self._last: Answer | None = None
        self._server: Upstream | None = None
        self._asked: Asked | None = None
        self._edns = True
        self._wrong = 0
        self._channel: socket.socket | None = None
        self._timer: Timer | None = None
        self._unsent = b""
        self._received = bytearray()

    def next(self) -> None:
        """Asks the next server, or ends."""
        self._server = next(self._servers, None)
        if self._server is None:
            self._end(self._last)
        else:
            self._ask(self._server, edns=True)

    def _ask(self, server: Upstream, *, edns: bool) -> None:
        self._edns, self._wrong = edns, 0
        self._asked = self._query.forwarded(edns=edns)
        try:
            channel = self._open(server, socket.SOCK_DGRAM)
            channel.connect(server.address)
            channel.send(self._asked.wire)
        except OSError:
            self._failed()
            return
        self._loop.watch(channel, READ, self._heard)

    def _heard(self) -> None:
        assert self._channel is not None and self._asked is not None
        try:
            data = self._channel.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:  # ECONNREFUSED: nobody is there
            self._failed()
            return
        answer = self._asked.read(data)
        if answer is not None:
            self._judge(answer)
            return
        self._wrong += 1
        if self._wrong >= _WRONG_MOST:
            self.next()  # somebody guesses: let him begin again, with another id and port

    def _judge(self, answer: Answer, *, whole: bool = False) -> None:
        assert self._server is not None
        self._upstreams.answered(self._server)
        if answer.dislikes_edns and self._edns:
            self._ask(self._server, edns=False)
        elif answer.truncated and not whole:
            self._ask_again(self._server)
        elif answer.final:
            self._end(answer)
        else:
            self._last = answer
            self.next()

    def _ask_again(self, server: Upstream) -> None:
        """Over TCP, where there is room for all of it."""
        assert self._asked is not None
        self._asked = self._query.forwarded(edns=self._edns)
        wire = self._asked.wire
        self._unsent, self._received = len(wire).to_bytes(_LENGTH, "big") + wire, bytearray()
        try:
            channel = self._open(server, socket.SOCK_STREAM)
            channel.connect(server.address)
        except BlockingIOError:
            pass  # it is on its way: EINPROGRESS
        except OSError:
            self._failed()
            return
        self._loop.watch(channel, WRITE, self._writable)

    def _writable(self) -> None:
        assert self._channel is not None
        try:
            self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._failed()
            return
        if not self._unsent:
            self._loop.watch(self._channel, READ, self._readable)

    def _readable(self) -> None:
        assert self._channel is not None and self._asked is not None
        try:
            part = self._channel.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._received += part
        end = _LENGTH + int.from_bytes(self._received[:_LENGTH], "big")
        if len(self._received) >= max(end, _LENGTH + 1):
            answer = self._asked.read(bytes(self._received[_LENGTH:end]))
            if answer is None:
                self._failed()
            else:
                self._judge(answer, whole=True)
        elif not part:
            self._failed()

    def _open(self, server: Upstream, kind: int) -> socket.socket:
        self._release()
        self._channel = socket.socket(server.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._timer = self._loop.later(ATTEMPT_SECONDS, self._failed)
        return self._channel

    def _failed(self) -> None:
        if self._server is not None:
            self._upstreams.failed(self._server)
        self.next()

    def _end(self, answer: Answer | None) -> None:
        self.let_go()
        self._ended(answer)

    def let_go(self) -> None:
        self._deadline.cancel()
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._channel is not None:
            self._loop.forget(self._channel)
            self._channel.close()
            self._channel = None
