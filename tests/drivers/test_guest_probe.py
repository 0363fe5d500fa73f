"""Readiness, against servers that behave as guests and forwards do."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.drivers.guest import probe
from reconciler.drivers.guest.probe import Answer

LONG, SHORT = 20.0, 0.2
Server = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def server() -> Iterator[Server]:
    """Starts a server on loopback which hands its connections to a function, and returns its port."""
    with ExitStack() as stack:

        def start(serve: Callable[[socket.socket], None]) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def accept() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    stack.callback(connection.close)
                    try:
                        serve(connection)
                    except OSError:
                        pass  # the probe had enough and left, which is its right

            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return int(listener.getsockname()[1])

        yield start


def silent(connection: socket.socket) -> None:
    pass


def closing(connection: socket.socket) -> None:
    connection.close()


def resetting(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)

    return serve


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    "parts",
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n",),
        (b"SSH", b"-2.0-", b"OpenSSH_9.2\r\n"),
        (b"Welcome\r\nto this machine\r\n", b"SSH-2.0-x\r\n"),
    ],
)
def test_a_banner_is_ssh(server: Server, parts: tuple[bytes, ...]) -> None:
    assert probe.ssh_banner("127.0.0.1", server(saying(*parts)), LONG)


@pytest.mark.parametrize("serve", [closing, resetting])
def test_an_end_is_no_ssh(server: Server, serve: Callable[[socket.socket], None]) -> None:
    assert not probe.ssh_banner("127.0.0.1", server(serve), LONG)


def test_silence_is_no_ssh(server: Server) -> None:
    assert not probe.ssh_banner("127.0.0.1", server(silent), SHORT)


def test_another_protocol_is_no_ssh(server: Server) -> None:
    assert not probe.ssh_banner("127.0.0.1", server(saying(b"220 mail SSH-2.0-\r\n", b"x" * 9000)), LONG)


def test_a_closed_port_is_no_ssh() -> None:
    assert not probe.ssh_banner("127.0.0.1", free_port(), LONG)


@pytest.mark.parametrize(
    ("serve", "answer"),
    [(silent, Answer.SILENT), (closing, Answer.CLOSED), (resetting, Answer.CLOSED), (saying(b"x"), Answer.DATA)],
)
def test_answers(server: Server, serve: Callable[[socket.socket], None], answer: Answer) -> None:
    assert probe.knock("127.0.0.1", server(serve), SHORT if answer is Answer.SILENT else LONG) is answer


def test_a_direct_port_is_open_when_it_accepts(server: Server) -> None:
    assert probe.port_open("127.0.0.1", server(closing), LONG, through_forward=False)
    assert not probe.port_open("127.0.0.1", free_port(), LONG, through_forward=False)


def test_a_forward_whose_guest_refuses_is_not_open(server: Server) -> None:
    assert not probe.port_open("127.0.0.1", server(resetting), LONG, through_forward=True)
    assert not probe.port_open("127.0.0.1", server(closing), LONG, through_forward=True)
    assert not probe.port_open("127.0.0.1", free_port(), LONG, through_forward=True)


def test_a_forward_to_a_server_is_open(server: Server) -> None:
    assert probe.port_open("127.0.0.1", server(saying(b"220 mail\r\n")), LONG, through_forward=True)
    assert probe.port_open("127.0.0.1", server(silent), SHORT, through_forward=True)


def test_silence_counts_only_with_a_witness(server: Server) -> None:
    port = server(silent)
    assert not probe.port_open("127.0.0.1", port, SHORT, through_forward=True, witness=server(silent))
    assert probe.port_open("127.0.0.1", port, SHORT, through_forward=True, witness=server(resetting))
    assert probe.port_open("127.0.0.1", port, SHORT, through_forward=True, witness=server(saying(b"SSH-2.0-x\r\n")))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", None),
        (b"login: ", None),
        (b"all is well, banger: not really\r\n", None),
        (b"\r\nbanger: the disk 'root' is missing\r\n", "the disk 'root' is missing"),
        (b"banger: first\nbanger: second\n", "second"),
        (b"banger: \x1b[31mred\x1b[0m\x07 \xff\n", "red \ufffd"),
        (b"banger: " + b"x" * 1000, "x" * 300),
        (b"[    3.80] Kernel panic - not syncing: VFS: no root\r\n", "Kernel panic - not syncing: VFS: no root"),
        (b"banger: old\n" + b"." * 70_000, None),
        (b"." * 70_000 + b"\nbanger: new\n", "new"),
    ],
)
def test_console(tmp_path: Path, text: bytes, found: str | None) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(text)
    assert probe.console_failure(path) == found


def test_no_console(tmp_path: Path) -> None:
    assert probe.console_failure(tmp_path / "none") is None
    assert probe.console_failure(tmp_path) is None


def test_importing_it_drags_nothing_in() -> None:
    code = (
        "import sys; import reconciler.drivers.guest.probe;"
        "print([m for m in sys.modules if m.startswith('reconciler.drivers.guest.') or m in ('subprocess', 'tarfile')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "['reconciler.drivers.guest.probe']"
