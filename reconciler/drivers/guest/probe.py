"""Looks whether a guest is ready. Read-only, bounded in time, and light to import: observation uses it.

QEMU's user-mode forward takes a connection before the guest listens, or is even there: that a connection is
accepted proves nothing. What comes after it does.
"""

from __future__ import annotations

import re
import socket
import time
from enum import StrEnum
from pathlib import Path

_BANNER = b"SSH-2.0-"
_BANNER_LIMIT = 8 * 1024
_CONSOLE_TAIL = 64 * 1024
_MESSAGE_LIMIT = 300
_FAILURE = re.compile(
    r"^(?:\[[ 0-9.]+\] ?)?(?:banger: (?P<ours>.+)|(?P<panic>Kernel panic - not syncing.*))$", re.MULTILINE
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")


class Answer(StrEnum):
    """What became of a connection."""

    DATA = "data"
    """The server spoke."""
    SILENT = "silent"
    """Accepted, and nothing came: a server that waits for its client, or a forward to a guest that is not up."""
    CLOSED = "closed"
    """Refused, reset or closed."""
    NONE = "none"
    """No connection in time."""

    @property
    def from_guest(self) -> bool:
        """Whether the guest's own kernel or server answered, even if a forward lies between."""
        return self in (Answer.DATA, Answer.CLOSED)


def ssh_banner(host: str, port: int, timeout: float) -> bool:
    """Whether an ssh server identifies itself within `timeout` seconds (RFC 4253 4.2).

    A server may send other lines first. Never raises for what the network does.
    """
    deadline = time.monotonic() + timeout
    received = b""
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            while len(received) < _BANNER_LIMIT:
                connection.settimeout(_left(deadline))
                more = connection.recv(1024)
                if not more:
                    return False
                received += more
                if any(line.startswith(_BANNER) for line in received.split(b"\n")):
                    return True
    except OSError:
        pass
    return False


def knock(host: str, port: int, timeout: float) -> Answer:
    """Connects and listens until something comes or `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    try:
        connection = socket.create_connection((host, port), timeout=timeout)
    except ConnectionError:
        return Answer.CLOSED
    except OSError:
        return Answer.NONE
    with connection:
        try:
            connection.settimeout(_left(deadline))
            return Answer.DATA if connection.recv(1) else Answer.CLOSED
        except TimeoutError:
            return Answer.SILENT
        except OSError:
            return Answer.CLOSED


def port_open(host: str, port: int, timeout: float, through_forward: bool, witness: int | None = None) -> bool:
    """Whether a server listens at a TCP port of the guest.

    Parameters
    ----------
    timeout: seconds. Without a forward it is the most that is waited for the connection. Through a forward it is
        also how long a server that says nothing has to be listened to before it counts as open: one second is plenty.
    through_forward: the port is one of QEMU's user-mode forwards. A guest that refuses shows as an end at once.
    witness: another forwarded port of the same guest, such as its ssh. As long as the guest's network is down every
        port of it is silent, so silence counts only if the witness hears the guest. Without it the caller has to
        know that the guest is up.
    """
    if not through_forward:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
        except OSError:
            return False
        return True
    answer = knock(host, port, timeout)
    if answer is Answer.SILENT and witness is not None:
        return knock(host, witness, timeout).from_guest
    return answer in (Answer.DATA, Answer.SILENT)


def console_failure(console_log: Path) -> str | None:
    """The last failure that the initramfs or the kernel reported on the console, or None.

    Reads no more than the last 64 KiB. The text is the guest's: it comes back as one printable line, cut at 300
    characters. A log that is not there, or cannot be read, tells of no failure.
    """
    try:
        with console_log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _CONSOLE_TAIL))
            tail = file.read(_CONSOLE_TAIL)
    except OSError:
        return None
    text = tail.decode("utf-8", "replace").replace("\r", "\n")
    last = None
    for match in _FAILURE.finditer(text):
        last = match
    if last is None:
        return None
    message = last["ours"] or last["panic"]
    return _CONTROL.sub("", message).strip()[:_MESSAGE_LIMIT] or None


def _left(deadline: float) -> float:
    """Seconds until the deadline; never 0, which would mean a non-blocking socket."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
