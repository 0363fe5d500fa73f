"""Clients over TCP (RFC 7766): one question after the other on each connection, few connections, none that idles."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from reconciler.drivers.network.dns.loop import READ, WRITE, Loop, Timer
from reconciler.drivers.network.dns.message import QUERY_MOST

MOST = 64
MOST_PER_CLIENT = 8
IDLE_SECONDS = 10.0
"""For a question to come in whole, and for an answer to be taken."""

_LENGTH = 2

Asked = Callable[[bytes, str, Callable[[bytes | None], None]], None]
"""Message, client, where the answer goes."""


class Streams:
    """The connections of one server. For the loop's thread only."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: set[_Stream] = set()
        self._by_client: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, listener: socket.socket, admits: Callable[[str], bool], asked: Asked) -> None:
        """Takes who is at the door; who may not come in, or would be one too many, is let go without a word.

        Raises OSError if nobody can be taken, as when the process has no descriptors left.
        """
        try:
            channel, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # gone again
        client = str(address[0])
        if len(self._open) >= MOST or self._by_client[client] >= MOST_PER_CLIENT or not admits(client):
            channel.close()
            return
        channel.setblocking(False)
        self._by_client[client] += 1
        stream = _Stream(self._loop, channel, client, listener, asked, self._left)
        self._open.add(stream)

    def close(self, listener: socket.socket | None = None) -> None:
        """Ends the connections that came by `listener`; None: all."""
        for stream in [each for each in self._open if listener is None or each.listener is listener]:
            stream.close()

    def _left(self, stream: _Stream) -> None:
        self._open.discard(stream)
        self._by_client[stream.client] -= 1
        if not self._by_client[stream.client]:
            del self._by_client[stream.client]


class _Stream:
    """One connection. Either reads a question, waits for its answer, or writes that."""

    def __init__(  # noqa: PLR0917  # what one connection has
        self,
        loop: Loop,
        channel: socket.socket,
        client: str,
        listener: socket.socket,
        asked: Asked,
        left: Callable[[_Stream], None],
    ) -> None:
        self.client = client
        self.listener = listener
        self._loop = loop
        self._channel = channel
        self._asked = asked
        self._left = left
        self._received = bytearray()
        self._unsent = b""
        self._closed = False
        self._timer: Timer = loop.later(IDLE_SECONDS, self.close)
        loop.watch(channel, READ, self._readable)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._timer.cancel()
            self._loop.forget(self._channel)
            self._channel.close()
            self._left(self)

    def _readable(self) -> None:
        try:
            part = self._channel.recv(_LENGTH + QUERY_MOST - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.close()
            return
        self._received += part
        self._look()

    def _look(self) -> None:
        """Asks if a whole question is there."""
        if len(self._received) < _LENGTH:
            return
        end = _LENGTH + int.from_bytes(self._received[:_LENGTH], "big")
        if end > _LENGTH + QUERY_MOST:
            self.close()
        elif len(self._received) >= end:
            wire = bytes(self._received[_LENGTH:end])
            del self._received[:end]
            self._loop.forget(self._channel)  # one at a time
            self._asked(wire, self.client, self._answer)

    def _answer(self, wire: bytes | None) -> None:
        if self._closed:
            return
        if wire is None:
            self.close()
            return
        self._unsent = len(wire).to_bytes(_LENGTH, "big") + wire
        self._rest()
        self._loop.watch(self._channel, WRITE, self._writable)

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._unsent:
            self._rest()
            self._loop.watch(self._channel, READ, self._readable)
            self._look()  # the next one may be here already

    def _rest(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.later(IDLE_SECONDS, self.close)
