"""One connection: its requests one after the other, each answered and audited."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable

from reconciler.helper import audit, ops, policy
from reconciler.helper.protocol import Code, Done, Envelope, Refusal, Request, decode_request, encode_answer, request_id
from reconciler.helper.transport import Peer, peer_of, receive_frame, send_frame

Perform = Callable[[int, Request, int], Done]
"""Takes the peer's uid, a checked request, and the descriptor of the peer's connection."""


class Replays:
    """Remembers the latest request ids, to refuse one that comes again with another body. Thread-safe."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, uid: int, identity: str, payload: bytes) -> None:
        """Refuses a known id with another body; the same body again is the same request, sent twice."""
        digest = hashlib.sha256(payload).digest()
        with self._lock:
            if self._seen.setdefault((uid, identity), digest) != digest:
                raise Refusal(Code.REPLAYED, f"request id {identity} was used for something else")
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)


class Session:
    """Serves one connected socket until it ends. `stopping` turns every further request away."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        replays: Replays,
        stopping: threading.Event,
        idle: float | None,
        perform: Perform = ops.perform,
    ) -> None:
        self._connection = connection
        self._replays = replays
        self._stopping = stopping
        self._idle = idle
        self._perform = perform
        self.peer: Peer = peer_of(connection)

    def serve(self) -> None:
        """Answers requests until the peer closes, or breaks the rules of the stream. Raises nothing."""
        try:
            while self._serve_one():
                pass
        except OSError:
            pass  # the peer went away, or does not take its answers
        finally:
            self._connection.close()

    def turn_away(self, refusal: Refusal) -> None:
        """Refuses the connection as such, and closes it."""
        try:
            self._finish(None, None, refusal)
        except OSError:
            pass
        finally:
            self._connection.close()

    def _serve_one(self) -> bool:
        try:
            payload = receive_frame(self._connection, self.peer, idle=self._idle)
        except Refusal as refusal:
            self._finish(None, None, refusal)
            return False
        if payload is None:
            return False
        envelope: Envelope | None = None
        outcome: Done | Refusal
        try:
            if self._stopping.is_set():
                raise Refusal(Code.SHUTTING_DOWN, "the helper is shutting down")
            envelope = decode_request(payload)
            policy.check(self.peer.uid, envelope)
            self._replays.check(self.peer.uid, envelope.id, payload)
            outcome = self._perform(self.peer.uid, envelope.request, self._connection.fileno())
        except Refusal as refusal:
            outcome = refusal
        except Exception as problem:
            # A bug of ours, or the kernel's no, in one request is that request's failure, and nobody else's.
            outcome = Refusal(Code.FAILED, f"{type(problem).__name__}: {problem}")
        self._finish(envelope.id if envelope else request_id(payload), envelope, outcome)
        return not (isinstance(outcome, Refusal) and outcome.code.closes)

    def _finish(self, identity: str | None, envelope: Envelope | None, outcome: Done | Refusal) -> None:
        descriptors = outcome.descriptors if isinstance(outcome, Done) else ()
        try:
            self._audit(identity, envelope, outcome)
            send_frame(self._connection, encode_answer(identity, outcome), descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _audit(self, identity: str | None, envelope: Envelope | None, outcome: Done | Refusal) -> None:
        subject = "-"
        if envelope is not None:
            owner = policy.subject(self.peer.uid, envelope.request)
            subject = f"{owner} of {owner.install} ({owner.interface})" if owner.name else f"rules of {owner.install}"
        result = "changed" if isinstance(outcome, Done) and outcome.changed else "unchanged"
        audit.record(
            uid=self.peer.uid,
            pid=self.peer.pid,
            request=identity or "-",
            operation=(envelope and envelope.operation) or "-",
            op=envelope.request.op if envelope else "-",
            object=subject,
            outcome=f"refused {outcome.code}: {outcome.message}" if isinstance(outcome, Refusal) else result,
        )
