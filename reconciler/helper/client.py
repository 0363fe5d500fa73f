"""The other side of the helper: blocking calls that several threads may share. Standard library only."""

from __future__ import annotations

import array
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, get_type_hints

from reconciler.helper.protocol import (
    HEADER,
    VERSION,
    Code,
    Done,
    Envelope,
    Op,
    Refusal,
    Request,
    frame,
    parse,
    payload_length,
    typed,
)

ANSWER_SECONDS = 60.0
"""How long an answer may take: others may hold the host-wide lock, for several commands of 10 s each at worst."""


class HelperLostError(Exception):
    """The connection ended or fell silent inside a request: whether it was done is unknown, and asking again is safe."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that arrived. `id` is None if the request was too broken to have one."""

    id: str | None
    outcome: Done | Refusal


@dataclass(frozen=True, slots=True)
class RulesShown:
    """The rules that an installation has in the kernel.

    `rules`: (environment, network) → (the digest that they were loaded with, "" if none is known; whether they are
    still what was loaded, with the forwarding that they need). `blockers`: forward chains of others that drop.
    """

    generation: int
    rules: Mapping[tuple[str, str], tuple[str, bool]]
    blockers: tuple[str, ...]


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
        self,
        *,
        install: str,
        environment: str,
        network: str,
        cidr: str,
        mtu: int,
        cidr6: str = "",
        operation: str = "",
    ) -> str:
        """Makes the network's bridge exist and be right; returns its interface name. `cidr6` "" for none."""
        wanted = Request(
            op=Op.ENSURE_BRIDGE,
            install=install,
            environment=environment,
            network=network,
            cidr=cidr,
            cidr6=cidr6,
            mtu=mtu,
        )
        return self._ask(wanted, operation).interface

    def delete_bridge(self, *, install: str, environment: str, network: str, operation: str = "") -> bool:
        """Deletes the network's rules, then its bridge; False if there was none."""
        wanted = Request(op=Op.DELETE_BRIDGE, install=install, environment=environment, network=network)
        return self._ask(wanted, operation).changed

    def ensure_tap(
        self, *, install: str, environment: str, network: str, vm: str, mtu: int, operation: str = ""
    ) -> str:
        """Makes the VM's tap exist on the network's bridge, openable by the peer's uid; returns its interface name."""
        wanted = Request(op=Op.ENSURE_TAP, install=install, environment=environment, network=network, vm=vm, mtu=mtu)
        return self._ask(wanted, operation).interface

    def delete_tap(self, *, install: str, environment: str, vm: str, operation: str = "") -> bool:
        """Deletes the VM's tap; False if there was none."""
        wanted = Request(op=Op.DELETE_TAP, install=install, environment=environment, vm=vm)
        return self._ask(wanted, operation).changed

    def ensure_rules(
        self,
        *,
        install: str,
        environment: str,
        network: str,
        digest: str,
        cidr: str,
        cidr6: str,
        nat: bool,
        isolated: bool,
        dns: bool,
        restricted: bool,
        egress: Iterable[tuple[str, str, int, int]],
        vms: Iterable[tuple[str, str]],
        ports: Iterable[tuple[str, int, str, str, int]],
        operation: str = "",
    ) -> bool:
        """Makes the network's rules be these; False if they were, intact and with this digest."""
        wanted = Request(
            op=Op.ENSURE_RULES,
            install=install,
            environment=environment,
            network=network,
            digest=digest,
            cidr=cidr,
            cidr6=cidr6,
            nat=nat,
            isolated=isolated,
            dns=dns,
            restricted=restricted,
            egress=tuple(egress),
            vms=tuple(vms),
            ports=tuple(ports),
        )
        return self._ask(wanted, operation).changed

    def show_rules(self, *, install: str) -> RulesShown:
        """What rules of this uid and installation the kernel has."""
        done = self._ask(Request(op=Op.SHOW_RULES, install=install), "")
        rules = {(environment, network): (digest, intact) for environment, network, digest, intact in done.rules}
        return RulesShown(done.generation, rules, done.blockers)

    def watch_rules(self, *, install: str, generation: int) -> int:
        """Returns the generation of the host's nft rules once it is not `generation`, or after at most 30 s.

        Other calls of this client wait for it meanwhile: watch with a client of its own.
        """
        return self._ask(Request(op=Op.WATCH_RULES, install=install, generation=generation), "").generation

    def allow_addresses(
        self,
        *,
        install: str,
        environment: str,
        network: str,
        name: str,
        addresses: Sequence[str],
        seconds: int,
        operation: str = "",
    ) -> bool:
        """Opens the way to the addresses of an egress name, as the network's rules write it, for some seconds."""
        wanted = Request(
            op=Op.ALLOW_ADDRESSES,
            install=install,
            environment=environment,
            network=network,
            name=name,
            addresses=tuple(addresses),
            seconds=seconds,
        )
        return self._ask(wanted, operation).changed

    def dns_sockets(self, *, install: str, environment: str, network: str) -> tuple[socket.socket, socket.socket]:
        """A UDP and a TCP socket, bound to port 53 of the network's gateway; neither listens yet."""
        done = self._ask(Request(op=Op.DNS_SOCKETS, install=install, environment=environment, network=network), "")
        if len(done.descriptors) != 2:
            _close(done.descriptors)
            raise HelperLostError(f"the helper sent {len(done.descriptors)} sockets, not two")
        udp, tcp = done.descriptors
        return socket.socket(fileno=udp), socket.socket(fileno=tcp)

    def route_names(self, *, install: str, environment: str, network: str) -> bool:
        """Has systemd-resolved ask the network's gateway for names below `vm`; False where it does not run."""
        wanted = Request(op=Op.ROUTE_NAMES, install=install, environment=environment, network=network)
        return self._ask(wanted, "").changed

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
        encoded = encode_request(envelope)
        with self._lock:
            fresh = self._connection is None
            try:
                return self._exchange(encoded, envelope.id)
            except HelperLostError:
                # An idle connection may have ended long ago, with the helper's retirement or upgrade.
                if fresh:
                    raise
                return self._exchange(encoded, envelope.id)

    def _exchange(self, encoded: bytes, identity: str) -> Done:
        descriptors: list[int] = []
        try:
            outcome = self._answer(encoded, identity, descriptors)
        except BaseException:
            _close(descriptors)
            raise
        return replace(outcome, descriptors=tuple(descriptors))

    def _answer(self, encoded: bytes, identity: str, descriptors: list[int]) -> Done:
        if self._connection is None:
            self._connection = self._dial()
        try:
            connection = self._connection.socket
            connection.settimeout(self._timeout)
            try:
                connection.sendall(encoded)
            except BrokenPipeError:
                pass  # a helper that turns us away answers first and does not read
            length = payload_length(_exactly(connection, HEADER.size, descriptors))
            answer = decode_answer(_exactly(connection, length, descriptors))
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


def encode_request(envelope: Envelope) -> bytes:
    """The frame of a request; Refusal (bad-frame) if it is too long for one."""
    request = envelope.request
    return frame(
        {
            "version": VERSION,
            "id": envelope.id,
            "operation": envelope.operation,
            "op": request.op,
            "args": {name: getattr(request, name) for name in request.op.fields},
        }
    )


def decode_answer(payload: bytes) -> Answer:
    """The answer in a frame's payload; Refusal (bad-encoding, bad-field, bad-version) if it is none."""
    message = parse(payload)
    if message.get("version") != VERSION:
        raise Refusal(Code.BAD_VERSION, "the helper speaks another version")
    identity = message.pop("id", None)
    if identity is not None and not isinstance(identity, str):
        raise Refusal(Code.BAD_FIELD, "the answer's id is not text")
    kind = "done" if "done" in message else "refused"
    body = typed(message, {"version": int, kind: dict}, "the answer")[kind]
    if kind == "done":
        hints: dict[str, Any] = get_type_hints(Done)
        wanted = {name: hints[name] for name in hints if name in {"changed", *body} - {"descriptors"}}
        return Answer(identity, Done(**{"interface": "", **typed(body, wanted, "the answer")}))
    body = typed(body, {"code": str, "message": str}, "the answer")
    try:
        code = Code(body["code"])
    except ValueError:
        raise Refusal(Code.BAD_FIELD, "the answer has an unknown code") from None
    return Answer(identity, Refusal(code, body["message"]))


def _exactly(connection: socket.socket, size: int, descriptors: list[int]) -> bytes:
    """Receives so many bytes; what descriptors come along are added to `descriptors`, closed on exec."""
    received = bytearray()
    while len(received) < size:
        part, ancillary, _, _ = connection.recvmsg(size - len(received), socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors += array.array("i", data[: len(data) // 4 * 4])
        if not part:
            raise ConnectionResetError("it ended")
        received += part
    return bytes(received)


def _close(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
