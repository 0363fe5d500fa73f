"""The process: limits on connections, its end, and the archive that is installed. No root, no network."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.helper.client import decode_answer
from reconciler.helper.protocol import HEADER, Code, Refusal
from reconciler.helper.server import MAX_PER_UID, Server, main

ROOT = Path(__file__).parents[2]
NONSENSE = HEADER.pack(5) + b"hello"
# Descriptor 3 and the environment of sd_listen_fds(3), then the program.
ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[2], sys.argv[2:])"
)


def code_of(connection: socket.socket) -> Code | None:
    with connection.makefile("rb") as stream:
        header = stream.read(HEADER.size)
        if not header:
            return None
        outcome = decode_answer(stream.read(*HEADER.unpack(header))).outcome
    return outcome.code if isinstance(outcome, Refusal) else None


class Listening:
    def __init__(self, path: Path, retire: float = 300) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.listener.listen()
        self.server = Server(self.listener, retire=retire)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return connection

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.listener.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    found = Listening(tmp_path / "s")
    yield found
    found.stop()


def test_the_ninth_connection_of_a_uid_is_refused(listening: Listening) -> None:
    held = [listening.connect() for _ in range(MAX_PER_UID)]
    for connection in held:
        connection.sendall(NONSENSE)
        assert code_of(connection) is Code.BAD_ENCODING
    with listening.connect() as ninth:
        assert code_of(ninth) is Code.TOO_MANY_CONNECTIONS
        assert code_of(ninth) is None
    for connection in held:
        connection.close()


def test_it_retires_when_nobody_is_connected(tmp_path: Path) -> None:
    found = Listening(tmp_path / "s", retire=0.05)
    found.thread.join(20)
    assert not found.thread.is_alive()
    found.listener.close()


def test_stopping_ends_idle_connections(listening: Listening) -> None:
    with listening.connect() as connection:
        connection.sendall(NONSENSE)
        assert code_of(connection) is Code.BAD_ENCODING
        listening.server.stop()
        assert code_of(connection) is None


@pytest.mark.parametrize("argv", [["--fd"], ["--fd", "1"], ["--fd", "x"], ["--help"], ["a", "b", "c"]])
def test_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage" in capsys.readouterr().err


def test_without_activation_it_says_how_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert main([]) == 2


def archive(folder: Path) -> Path:
    """What docs/helper-protocol.md says to install."""
    source = folder / "source"
    shutil.copytree(
        ROOT / "reconciler/helper", source / "reconciler/helper", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "reconciler/__init__.py", source / "reconciler/")
    target = folder / "helper.pyz"
    zipapp.create_archive(source, target, main="reconciler.helper.__main__:run")
    return target


def test_the_installed_archive_needs_nothing_else(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    argv = [sys.executable, "-I", "-S", "-B", str(archive(tmp_path)), "--fd", str(theirs.fileno())]
    # No stdio, and an environment that would break any other Python.
    hostile = {"PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent", "PYTHONSTARTUP": "/nonexistent"}
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv]
    with ours, subprocess.Popen(shell, pass_fds=[theirs.fileno()], env=hostile) as child:
        theirs.close()
        ours.settimeout(20)
        ours.sendall(NONSENSE)
        assert code_of(ours) is Code.BAD_ENCODING
        assert sorted(os.listdir(f"/proc/{child.pid}/fd"), key=int)[:4] == ["0", "1", "2", argv[-1]]
        assert len(os.listdir(f"/proc/{child.pid}/fd")) == 4
        assert os.readlink(f"/proc/{child.pid}/cwd") == "/"
        ours.shutdown(socket.SHUT_WR)
        assert child.wait(20) == 0


def test_socket_activation_and_sigterm(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.listen()
    argv = [sys.executable, "-I", "-S", "-B", str(archive(tmp_path))]
    launcher = [sys.executable, "-c", ACTIVATE, str(listener.fileno()), *argv]
    with subprocess.Popen(launcher, pass_fds=[listener.fileno()]) as child, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(tmp_path / "s"))
        connection.sendall(NONSENSE)
        assert code_of(connection) is Code.BAD_ENCODING
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    listener.close()
