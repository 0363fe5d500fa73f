"""Connections: the transport's rules, over real sockets, with the operations faked at their boundary."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.helper import transport
from reconciler.helper.client import Answer, HelperClient, HelperLostError, decode_answer, encode_request
from reconciler.helper.protocol import (
    HEADER,
    Code,
    Done,
    Envelope,
    Op,
    Refusal,
    Request,
)
from reconciler.helper.session import Replays, Session

REQUEST = Request(op=Op.DELETE_TAP, install="0123456789ab", environment="demo", vm="web")


class Served:
    """A session in a thread, and the peer's end of its connection."""

    def __init__(self, perform: object = None, *, idle: float | None = None, credentials: bool = True) -> None:
        self.performed: list[Request] = []
        self.stopping = threading.Event()
        self.socket, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, credentials)

        def record(_uid: int, request: Request, _connection: int) -> Done:
            self.performed.append(request)
            return Done("bgt-0000000000", True)

        session = Session(theirs, replays=Replays(), stopping=self.stopping, idle=idle, perform=perform or record)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=session.serve)
        self.thread.start()

    def send(self, identity: str = "a1", request: Request = REQUEST) -> None:
        self.socket.sendall(encode_request(Envelope(identity, "", request)))

    def answer(self) -> Answer | None:
        header = _read(self.socket, HEADER.size)
        return decode_answer(_read(self.socket, *HEADER.unpack(header))) if header else None

    def code(self) -> Code | None:
        answer = self.answer()
        return answer.outcome.code if answer and isinstance(answer.outcome, Refusal) else None

    def close(self) -> None:
        self.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


def _read(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


@pytest.fixture
def served() -> Iterator[Served]:
    session = Served()
    yield session
    session.close()


def test_requests_are_answered_in_turn(served: Served) -> None:
    for number in range(3):
        served.send(f"a{number}")
    assert [served.answer() for _ in range(3)] == [Answer(f"a{n}", Done("bgt-0000000000", True)) for n in range(3)]


def test_ten_thousand_pipelined_requests(served: Served) -> None:
    def flood() -> None:
        for number in range(10_000):
            served.send(f"a{number}")

    sender = threading.Thread(target=flood)
    sender.start()
    for number in range(10_000):
        answer = served.answer()
        assert answer is not None
        assert answer.id == f"a{number}"
    sender.join()


@pytest.mark.parametrize("length", [0, 64 * 1024 + 1, 2**32 - 1])
def test_a_wrong_length_ends_the_connection(served: Served, length: int) -> None:
    served.socket.sendall(struct.pack("!I", length))
    assert served.code() is Code.BAD_FRAME
    assert served.answer() is None


def test_half_a_frame_then_close(served: Served) -> None:
    served.socket.sendall(HEADER.pack(100) + b"half")
    served.socket.shutdown(socket.SHUT_WR)
    assert served.code() is Code.BAD_FRAME
    assert served.performed == []


def test_a_frame_that_never_ends(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(transport, "FRAME_SECONDS", 0.05)
    served.socket.sendall(b"\0")
    assert served.code() is Code.TIMED_OUT


def test_a_sender_that_the_kernel_does_not_name() -> None:
    served = Served(credentials=False)
    served.send()
    assert served.code() is Code.BAD_IDENTITY
    assert served.performed == []
    served.close()


def test_an_end_is_not_taken_for_somebody_else() -> None:
    """With the end of a connection the kernel gives credentials too, of nobody: uid 0."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.shutdown(socket.SHUT_WR)
        assert transport.receive_frame(theirs, transport.Peer(os.getpid(), 997), idle=1.0) is None


def test_a_silent_connection() -> None:
    served = Served(idle=0.05)
    assert served.code() is Code.TIMED_OUT
    assert served.answer() is None
    served.close()


def test_nonsense_is_refused_and_the_connection_goes_on(served: Served) -> None:
    for payload in (b"hello", b'{"version": 1, "id": "a7"}', json.dumps({"version": 9, "id": "a8"}).encode()):
        served.socket.sendall(HEADER.pack(len(payload)) + payload)
    assert [answer.id for answer in (served.answer(), served.answer(), served.answer()) if answer] == [None, "a7", "a8"]
    served.send()
    assert served.answer() == Answer("a1", Done("bgt-0000000000", True))


def test_a_replayed_id(served: Served) -> None:
    served.send("a1")
    served.send("a1")
    served.send("a1", replace(REQUEST, vm="db"))
    assert isinstance(getattr(served.answer(), "outcome", None), Done)
    assert isinstance(getattr(served.answer(), "outcome", None), Done)
    assert served.code() is Code.REPLAYED
    assert len(served.performed) == 2


def test_the_memory_of_ids_is_bounded() -> None:
    replays = Replays(most=2)
    for number in range(5):
        replays.check(1000, f"a{number}", b"one")
    replays.check(1000, "a0", b"forgotten, so new")
    with pytest.raises(Refusal):
        replays.check(1000, "a4", b"another")
    replays.check(1001, "a4", b"another uid's ids are its own")


@pytest.mark.parametrize("count", [1, 2, 253])
def test_descriptors_are_refused_and_not_kept(served: Served, count: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as file:
        rights = array.array("i", [file.fileno()] * count)
        served.socket.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    assert served.code() is Code.DESCRIPTORS
    assert len(os.listdir("/proc/self/fd")) <= before


def test_shutting_down(served: Served) -> None:
    served.stopping.set()
    served.send()
    assert served.code() is Code.SHUTTING_DOWN
    assert served.performed == []


def test_a_bug_fails_one_request_only() -> None:
    def perform(_uid: int, _request: Request, _connection: int) -> Done:
        raise ZeroDivisionError("of ours")

    served = Served(perform)
    served.send()
    assert served.code() is Code.FAILED
    served.send("a2")
    assert served.code() is Code.FAILED
    served.close()


def test_one_audit_line_per_request(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.send()
    served.answer()
    payload = json.dumps({"version": 1, "id": 'x"\n', "op": "\n\n"}).encode()
    served.socket.sendall(HEADER.pack(len(payload)) + payload)
    served.answer()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f'uid={os.getuid()} pid={os.getpid()} request="a1"' in lines[0]
    assert 'op="delete_tap" object="vm demo/web of 0123456789ab (bgt-' in lines[0]
    assert lines[0].endswith('outcome="changed"')
    assert 'outcome="refused bad-field' in lines[1]


class Dialled:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def close(self) -> None:
        self.socket.close()


def test_a_client_dials_again_after_an_idle_connection_ended() -> None:
    sessions = [Served(), Served()]
    dialled = iter(sessions)
    client = HelperClient(lambda: Dialled(next(dialled).socket))
    assert client.delete_tap(install="0123456789ab", environment="demo", vm="web")
    sessions[0].stopping.set()
    sessions[0].socket.shutdown(socket.SHUT_WR)
    sessions[0].thread.join()
    assert client.delete_tap(install="0123456789ab", environment="demo", vm="web")
    client.close()
    for session in sessions:
        session.close()


def test_a_client_tells_a_connection_lost_in_its_first_request() -> None:
    def dial() -> Dialled:
        ours, theirs = socket.socketpair()
        theirs.close()
        return Dialled(ours)

    with pytest.raises(HelperLostError):
        HelperClient(dial).delete_tap(install="0123456789ab", environment="demo", vm="web")


def test_a_client_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(HelperLostError, match="did not answer"):
        HelperClient(lambda: Dialled(ours), timeout=0.05).delete_tap(
            install="0123456789ab", environment="demo", vm="web"
        )


def test_threads_share_a_client() -> None:
    served = Served()
    client = HelperClient(lambda: Dialled(served.socket))
    answers: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(client.delete_tap(install="0123456789ab", environment="demo", vm="web"))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 16
    client.close()
    served.close()


def test_descriptors_come_with_their_answer_and_are_let_go_of() -> None:
    ends: list[socket.socket] = []

    def perform(_uid: int, _request: Request, _connection: int) -> Done:
        made = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX)]
        ends.extend(made)
        return Done("bgb-0000000000", True, descriptors=tuple(end.detach() for end in made))

    before = len(os.listdir("/proc/self/fd"))
    served = Served(perform)
    client = HelperClient(lambda: Dialled(served.socket))
    udp, tcp = client.dns_sockets(install="0123456789ab", environment="demo", network="lab")
    assert (udp.type, tcp.type) == (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    assert not udp.get_inheritable()
    udp.close()
    tcp.close()
    client.close()
    served.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_client_that_gets_too_few_sockets_keeps_none() -> None:
    before = len(os.listdir("/proc/self/fd"))
    served = Served(lambda *_: Done("bgb-0000000000", True, descriptors=(os.open(os.devnull, os.O_RDONLY),)))
    client = HelperClient(lambda: Dialled(served.socket))
    with pytest.raises(HelperLostError, match="1 sockets"):
        client.dns_sockets(install="0123456789ab", environment="demo", network="lab")
    client.close()
    served.close()
    assert len(os.listdir("/proc/self/fd")) == before
