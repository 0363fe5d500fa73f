"""The other side of the helper: blocking calls that several threads may share. Standard library only."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from reconciler.helper.protocol import (
    HEADER,
    Code,
    DeleteBridge,
    DeleteTap,
    Done,
    EnsureBridge,
    EnsureTap,
    Envelope,
    Refusal,
    Request,
    decode_answer,
    encode_request,
    payload_length,
)

ANSWER_SECONDS = 60.0
"""How long an answer may take: others may hold the host-wide lock, for several commands of 10 s each at worst."""


class HelperLostError(Exception):
    """The connection ended or fell silent inside a request: whether it was done is unknown, and asking again is safe."""


class Connection(Protocol):
    """A way to a helper: a socket, and how to let go of what is behind it."""

    @property
    def socket(self) -> socket.socket: ...

    def close(self) -> None: ...


class HelperClient:
    """Asks the helper. Thread-safe: one request at a time; the helper works on one at a time anyway.

    Every call raises Refusal for the helper's no, and HelperLostError. After either, the next call works again:
    a lost connection is dialled anew. Calls take strings as the specification has them and `operation`, an id that
    the helper's audit shows; `mtu` in bytes.
    """

    def __init__(self, dial: Callable[[], Connection], *, timeout: float = ANSWER_SECONDS) -> None:
        """`dial` makes a connection; its exceptions reach the caller. `timeout` in seconds per answer."""
        self._dial = dial
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def open(self) -> None:
        """Connects now rather than at the first request."""
        with self._lock:
            if self._connection is None:
                self._connection = self._dial()

    def ensure_bridge(
        self, *, install: str, environment: str, network: str, cidr: str, mtu: int, operation: str = ""
    ) -> str:
        """Makes the network's bridge exist and be right; returns its interface name."""
        wanted = EnsureBridge(install=install, environment=environment, network=network, cidr=cidr, mtu=mtu)
        return self._ask(wanted, operation).interface

    def delete_bridge(self, *, install: str, environment: str, network: str, operation: str = "") -> bool:
        """Deletes the network's bridge; False if there was none."""
        return self._ask(DeleteBridge(install=install, environment=environment, network=network), operation).changed

    def ensure_tap(
        self, *, install: str, environment: str, network: str, vm: str, mtu: int, operation: str = ""
    ) -> str:
        """Makes the VM's tap exist on the network's bridge, openable by the peer's uid; returns its interface name."""
        wanted = EnsureTap(install=install, environment=environment, network=network, vm=vm, mtu=mtu)
        return self._ask(wanted, operation).interface

    def delete_tap(self, *, install: str, environment: str, vm: str, operation: str = "") -> bool:
        """Deletes the VM's tap; False if there was none."""
        return self._ask(DeleteTap(install=install, environment=environment, vm=vm), operation).changed

    def close(self) -> None:
        """Ends the connection; a later call would make a new one."""
        with self._lock:
            self._drop()

    def __enter__(self) -> HelperClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Request, operation: str) -> Done:
        envelope = Envelope(secrets.token_hex(8), operation, request)
        frame = encode_request(envelope)
        with self._lock:
            fresh = self._connection is None
            try:
                return self._exchange(frame, envelope.id)
            except HelperLostError:
                # An idle connection may have ended long ago, with the helper's retirement or upgrade.
                if fresh:
                    raise
                return self._exchange(frame, envelope.id)

    def _exchange(self, frame: bytes, identity: str) -> Done:
        if self._connection is None:
            self._connection = self._dial()
        try:
            connection = self._connection.socket
            connection.settimeout(self._timeout)
            try:
                connection.sendall(frame)
            except BrokenPipeError:
                pass  # a helper that turns us away answers first and does not read
            answer = decode_answer(_exactly(connection, payload_length(_exactly(connection, HEADER.size))))
        except TimeoutError:
            self._drop()
            raise HelperLostError(f"the helper did not answer within {self._timeout:g} s") from None
        except OSError as problem:
            self._drop()
            raise HelperLostError(f"the connection to the helper broke: {problem.strerror or problem}") from None
        except BaseException:
            # Interrupted with an answer still to come: it must not be taken for the next request's.
            self._drop()
            raise
        outcome = answer.outcome
        if isinstance(outcome, Refusal) and outcome.code.closes:
            self._drop()
            if outcome.code in (Code.SHUTTING_DOWN, Code.TIMED_OUT):
                raise HelperLostError(f"the helper ended the connection: {outcome.message}")
            raise outcome
        if answer.id != identity:
            self._drop()
            raise HelperLostError("the helper answered another request")
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionResetError("it ended")
        received += part
    return bytes(received)
