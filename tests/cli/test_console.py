"""`banger console`: a terminal on a line, and how it lets go."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli import attaching
from reconciler.cli.attaching import End
from tests.cli.conftest import Run
from tests.cli.test_process import on_a_terminal, start

DETACH = attaching.key("ctrl-]")
PATIENCE = 30.0


class Desk:
    """A terminal with somebody at it, and a guest at the other end of the line."""

    def __init__(self) -> None:
        self.person, self.terminal = pty.openpty()
        self.guest, self.line = socket.socketpair()
        self.guest.settimeout(PATIENCE)
        self.before = termios.tcgetattr(self.terminal)
        self.ended: list[End | BaseException] = []
        self.thread = threading.Thread(target=self._attach, daemon=True)

    def _attach(self) -> None:
        try:
            self.ended.append(attaching.attach(self.line, DETACH, keyboard=self.terminal, screen=self.terminal))
        except BaseException as problem:
            self.ended.append(problem)

    def begin(self) -> None:
        self.thread.start()
        self.guest.sendall(b"login: ")
        assert self.shown(b"login: ").endswith(b"login: ")  # so the terminal is in raw mode by now

    def type(self, data: bytes) -> None:
        os.write(self.person, data)

    def hears(self, count: int) -> bytes:
        heard = b""
        while len(heard) < count:
            heard += self.guest.recv(count - len(heard))
        return heard

    def shown(self, until: bytes) -> bytes:
        seen = b""
        while until not in seen:
            assert select.select([self.person], [], [], PATIENCE)[0], seen
            seen += os.read(self.person, 4096)
        return seen

    def end(self) -> End | BaseException:
        self.thread.join(PATIENCE)
        assert termios.tcgetattr(self.terminal) == self.before
        return self.ended[0]

    def close(self) -> None:
        for end in (self.guest, self.line):
            end.close()
        for fd in (self.person, self.terminal):
            os.close(fd)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_every_byte_passes_but_the_key(desk: Desk) -> None:
    desk.begin()
    # What a terminal in its usual mode would turn into signals, line ends or nothing.
    every = bytes(byte for byte in range(256) if byte != DETACH)
    desk.type(every)
    assert desk.hears(len(every)) == every
    desk.guest.sendall(b"\x1b[2J\xff")
    assert desk.shown(b"\xff") == b"\x1b[2J\xff"
    desk.type(b"bye" + bytes([DETACH]) + b"not for the guest")
    assert desk.hears(3) == b"bye"
    assert desk.end() is End.DETACHED


def test_the_end_of_the_vm_ends_it(desk: Desk) -> None:
    desk.begin()
    desk.guest.sendall(b"Power down\r\n")
    desk.guest.close()
    assert desk.end() is End.CLOSED
    shown = desk.shown(b"\x1b[?1006l")
    assert shown.startswith(b"Power down\r\n") and b"\x1b[?1049l" in shown


def test_a_guest_that_does_not_read_does_not_hold_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "_TYPED_MOST", 1000)
    monkeypatch.setattr(attaching, "_send", lambda line, data: 0)
    desk.begin()
    desk.type(b"x" * 3000)
    desk.type(bytes([DETACH]))
    assert desk.end() is End.DETACHED


def test_a_screen_that_is_held_back_holds_nothing_back(desk: Desk) -> None:
    """Nobody reads the terminal: as much is written as it takes, and then the process is told to go."""
    fcntl.fcntl(desk.terminal, fcntl.F_SETFL, fcntl.fcntl(desk.terminal, fcntl.F_GETFL) | os.O_NONBLOCK)
    try:
        while True:
            os.write(desk.terminal, b"x" * 1024)
    except BlockingIOError:
        pass
    fcntl.fcntl(desk.terminal, fcntl.F_SETFL, fcntl.fcntl(desk.terminal, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    desk.guest.close()
    desk.thread.start()
    assert desk.end() is End.CLOSED


@pytest.mark.parametrize(("text", "code"), [("ctrl-]", 0x1D), ("Ctrl-a", 1), ("ctrl-\\", 0x1C), (" ctrl-_ ", 0x1F)])
def test_keys(text: str, code: int) -> None:
    assert attaching.key(text) == code


@pytest.mark.parametrize("text", ["", "]", "ctrl-", "ctrl-ab", "alt-x", "ctrl-1", "ctrl-é"])
def test_what_is_no_key_is_refused_with_one_that_is(run: Run, text: str) -> None:
    result = run("console", "--detach-key", text, "dev")
    assert (result.exit_code, "such as ctrl-]" in result.stderr) == (2, True)


def test_without_a_terminal_it_says_what_does(run: Run) -> None:
    result = run("console", "dev")
    assert result.exit_code == 2
    assert "banger logs -f dev" in result.stderr


ATTACHED = """
import contextlib, socket
guest, line = socket.socketpair()
wire.attach = lambda way, ref: contextlib.nullcontext(line)
"""


def test_it_says_how_to_leave_and_that_one_has_left() -> None:
    code, shown = on_a_terminal(ATTACHED + "guest.close()\nmain()", "console", "dev")
    assert code == 0
    assert shown.startswith("attached to demo/dev: ctrl-] detaches")
    assert shown.endswith("demo/dev has ended\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_restores_the_terminal(tmp_path: Path, number: signal.Signals) -> None:
    person, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    try:
        child = start(
            ATTACHED + "guest.sendall(b'login: ')\nmain()",
            "console",
            "dev",
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        seen = b""
        while b"login: " not in seen:
            seen += os.read(person, 4096)
        assert termios.tcgetattr(terminal) != before
        child.send_signal(number)
        while b"detached from demo/dev" not in seen:
            seen += os.read(person, 4096)
        assert child.wait(PATIENCE) == 128 + number
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(person)
        os.close(terminal)
