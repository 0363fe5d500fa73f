"""A terminal on a guest's serial line: what is typed goes there, and what it says comes here, until a key detaches.

The terminal is put into raw mode, and is what it was before however this ends, short of SIGKILL. A guest's bytes reach it as
they are: editors and pagers need that. So modes that a guest may have left it in are switched off at the end.
"""

from __future__ import annotations

import os
import select
import socket
import termios
import tty
from enum import StrEnum

from reconciler.lib.errors import BangerError

_BLOCK = 1 << 14
_TYPED_MOST = 1 << 20
"""Bytes that wait for a guest which does not read. More than that is not typed, and is let go of."""
# Colours, hidden cursor, other screen, pasting and mouse reports (xterm: ctlseqs, "DEC Private Mode Set").
_CALM = b"\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\r\n"


class End(StrEnum):
    """How it came to an end."""

    DETACHED = "detached"
    CLOSED = "closed"
    """The other side has gone: the VM ended."""


def key(text: str) -> int:
    """`ctrl-]` as what a terminal sends for it. ValueError says what is right."""
    name, dash, letter = text.strip().lower().partition("-")
    if name != "ctrl" or not dash or len(letter) != 1 or not ("a" <= letter <= "z" or letter in "[\\]^_"):
        raise ValueError(
            f"{text!r} is no key to detach with; write ctrl- and a letter or one of [ \\ ] ^ _, such as ctrl-]"
        )
    return ord(letter.upper()) & 0x1F


def attach(line: socket.socket, detach: int, *, keyboard: int = 0, screen: int = 1) -> End:
    """Joins a terminal and the line until `detach` is typed or the line ends. `keyboard` and `screen` are descriptors.

    Raises BangerError if the terminal goes away.
    """
    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard, termios.TCSANOW)
        return _join(line, detach, keyboard, screen)
    except termios.error as problem:
        raise BangerError(f"this terminal cannot be used: {problem}") from None
    finally:
        # At once: a screen that is held back must not hold this back, nor the line.
        try:
            termios.tcsetattr(keyboard, termios.TCSANOW, before)
            if select.select([], [screen], [], 0)[1]:
                os.write(screen, _CALM)
        except (OSError, termios.error):
            pass  # it has gone, and needs nothing any more


def _join(line: socket.socket, detach: int, keyboard: int, screen: int) -> End:
    typed = b""
    line.setblocking(False)
    while True:
        other = line.fileno()
        readable, writable, _ = select.select([keyboard, other], [other] if typed else [], [])
        try:
            if other in readable:
                said = line.recv(_BLOCK)
                if not said:
                    return End.CLOSED
                _write(screen, said)
            if keyboard in readable:
                more = os.read(keyboard, _BLOCK)
                before, key_typed, _ = more.partition(bytes([detach]))
                if not more or (key_typed and not before):
                    return End.DETACHED
                typed = (typed + before)[:_TYPED_MOST]
                if key_typed:
                    _send(line, typed)
                    return End.DETACHED
            if other in writable:
                typed = typed[_send(line, typed) :]
        except ConnectionError:
            return End.CLOSED


def _send(line: socket.socket, data: bytes) -> int:
    """How much of it the line takes now."""
    try:
        return line.send(data)
    except BlockingIOError:
        return 0


def _write(screen: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(screen, rest) :]
