"""Frames over a Unix socket, with the kernel's word on who sends them (unix(7), SO_PEERCRED and SO_PASSCRED).

SO_PEERCRED names the process that connected; the socket may since have been passed on to another. SCM_CREDENTIALS
names the sender of each message, so the two are compared. The kernel attaches it to what is sent once SO_PASSCRED is set,
which a listening socket hands on to connections made from then on; so it has to be set before listening begins.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.helper.protocol import HEADER, Code, Refusal, payload_length

_UCRED = struct.Struct("iII")
FRAME_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, as the kernel saw it then."""
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)


def receive_frame(connection: socket.socket, peer: Peer, *, idle: float | None) -> bytes | None:
    """The next frame's payload; None if the peer has closed between two frames.

    Parameters
    ----------
    idle: seconds to wait for a frame to begin, or None. Once begun, it has FRAME_SECONDS to end.

    Raises Refusal: a length out of range, half a frame, too slow, descriptors, another sender than `peer`.
    """
    connection.settimeout(idle)
    first = _receive(connection, peer, 1)
    if not first:
        return None
    deadline = time.monotonic() + FRAME_SECONDS
    header = first + _exactly(connection, peer, HEADER.size - 1, deadline)
    return _exactly(connection, peer, payload_length(header), deadline)


def send_frame(connection: socket.socket, frame: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends a frame, descriptors with its first byte; TimeoutError if the peer does not take it within FRAME_SECONDS."""
    connection.settimeout(FRAME_SECONDS)
    sent = socket.send_fds(connection, [frame], list(descriptors)) if descriptors else 0
    connection.sendall(frame[sent:])


def _exactly(connection: socket.socket, peer: Peer, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        # The whole frame has one deadline: a byte per second must not renew it.
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = _receive(connection, peer, size - len(received))
        if not part:
            raise Refusal(Code.BAD_FRAME, "the connection ended inside a frame")
        received += part
    return bytes(received)


def _receive(connection: socket.socket, peer: Peer, size: int) -> bytes:
    # Room for the credentials alone: descriptors that a peer sends are closed by the kernel, which says so.
    try:
        part, ancillary, flags, _ = connection.recvmsg(size, socket.CMSG_SPACE(_UCRED.size))
    except TimeoutError:
        raise Refusal(Code.TIMED_OUT, "no whole frame in time") from None
    if not part:
        return part  # closed: nobody sends, and the credentials that come with it are nobody's
    if flags & socket.MSG_CTRUNC:
        raise Refusal(Code.DESCRIPTORS, "no operation takes descriptors")
    if not ancillary:
        raise Refusal(Code.BAD_IDENTITY, "the sender is unknown")
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET or kind != socket.SCM_CREDENTIALS:
            raise Refusal(Code.DESCRIPTORS, "no operation takes descriptors")
        uid = _UCRED.unpack(data[: _UCRED.size])[1]
        if uid != peer.uid:
            raise Refusal(Code.BAD_IDENTITY, f"uid {uid} sends on a connection of uid {peer.uid}")
    return part
