"""The QMP client against servers that behave, and that do not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from reconciler.drivers.vmm import qmp
from reconciler.drivers.vmm.qmp import Qmp, QmpCommandError, QmpError

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
EVENT = b'{"event": "RTC_CHANGE", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}\n'

Script = Callable[[BinaryIO, socket.socket], None]
Serve = Callable[[Script], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Runs a server that treats its one client as the script says, then hangs up."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)
    # Deeper than the 107 bytes that a socket's path may have.
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)

    def start(script: Script) -> Path:
        with qmp.sockets.folder(folder) as fd:
            listener.bind(f"{qmp.sockets.inside(fd)}/qmp.sock")
        listener.listen(1)

        def work() -> None:
            client, _ = listener.accept()
            with client, client.makefile("rb") as lines:
                try:
                    script(lines, client)
                except (OSError, json.JSONDecodeError):
                    pass  # the client gave up: what is read then is nothing, or half a line

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        threads.append(thread)
        return folder / "qmp.sock"

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


def answer(
    lines: BinaryIO, client: socket.socket, *, asked: list[dict[str, object]] | None = None, **content: object
) -> None:
    request: dict[str, object] = json.loads(lines.readline())
    if asked is not None:
        asked.append(request)  # before the answer, upon which the test goes on
    client.sendall(json.dumps({**content, "id": request["id"]}).encode() + b"\n")


def greet(lines: BinaryIO, client: socket.socket) -> None:
    client.sendall(GREETING)
    answer(lines, client, **{"return": {}})


def test_events_and_stale_answers_are_passed_over(serve: Serve) -> None:
    asked: list[dict[str, object]] = []

    def script(lines: BinaryIO, client: socket.socket) -> None:
        greet(lines, client)
        client.sendall(EVENT + b'{"return": "stale", "id": 77}\n')
        answer(lines, client, asked=asked, **{"return": {"status": "running"}})

    with Qmp(serve(script), 10) as session:
        assert session.execute("query-status", deep=True) == {"status": "running"}
    assert asked[0]["execute"] == "query-status"
    assert asked[0]["arguments"] == {"deep": True}


def test_an_answer_in_pieces_is_one_answer(serve: Serve) -> None:
    def script(lines: BinaryIO, client: socket.socket) -> None:
        greet(lines, client)
        request = json.loads(lines.readline())
        for byte in json.dumps({"return": 5, "id": request["id"]}).encode() + b"\r\n":
            client.sendall(bytes((byte,)))

    with Qmp(serve(script), 10) as session:
        assert session.execute("x") == 5


def test_a_refusal_carries_the_reason(serve: Serve) -> None:
    def script(lines: BinaryIO, client: socket.socket) -> None:
        greet(lines, client)
        answer(lines, client, error={"class": "CommandNotFound", "desc": "no such command"})

    with Qmp(serve(script), 10) as session, pytest.raises(QmpCommandError, match="no such command") as caught:
        session.execute("nonsense")
    assert caught.value.reason == "CommandNotFound"


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"SSH-2.0-OpenSSH\n", "no JSON"),
        (b"[" * 100_000 + b"\n", "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b'{"hello": 1}\n', "no QMP"),
        (b"\xff\xfe\n", "no JSON"),
        (b"x" * (qmp.MAX_LINE + (1 << 17)), "more than"),
        (b"", "was closed"),
        (GREETING, "was closed"),
        (GREETING + b'{"id": 1}\n', "answers qmp_capabilities"),
    ],
)
def test_what_is_not_qmp_is_said_to_be_so(serve: Serve, greeting: bytes, words: str) -> None:
    def script(lines: BinaryIO, client: socket.socket) -> None:
        client.sendall(greeting)
        client.shutdown(socket.SHUT_WR)
        lines.read()

    with pytest.raises(QmpError, match=words):
        Qmp(serve(script), 10)


def test_silence_ends_with_the_deadline(serve: Serve) -> None:
    with pytest.raises(QmpError, match="does not answer in time"):
        Qmp(serve(lambda lines, client: lines.read() and None), 0.05)


def test_events_without_end_do_not_move_the_deadline(serve: Serve) -> None:
    def script(lines: BinaryIO, client: socket.socket) -> None:
        greet(lines, client)
        while True:
            client.sendall(EVENT)

    with pytest.raises(QmpError, match="does not answer in time"), Qmp(serve(script), 0.2) as session:
        session.execute("query-status")


def test_no_server_is_a_retryable_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "no" / "folder"):
        with pytest.raises(QmpError, match="No such file") as caught:
            Qmp(path, 1)
        assert caught.value.error_class.worth_retrying
