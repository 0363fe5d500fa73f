"""Tells when links of ours may have changed, by the kernel's own announcements (rtnetlink(7), netlink(7)).

An announcement is not the truth, which `probe` reads: it only says when to look. Those about everybody's links come by
here, a container's hundred veths too, and decoding one in full takes pyroute2 half a millisecond. So nothing but the
index and the name of a link is read.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from reconciler.helper.names import managed

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR = 16, 17, 20, 21
_IFLA_IFNAME = 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_DATAGRAM = 1 << 16  # bytes
_AT_ONCE = 256  # datagrams
_PAUSE = 0.05  # seconds between two calls: a network that is being built is announced a dozen times
_REOPEN_FIRST, _REOPEN_LAST = 0.1, 30.0  # seconds


class _News(NamedTuple):
    kind: int
    family: int
    number: int
    name: str


class LinkWatch:
    """One thread that listens; no polling.

    Parameters
    ----------
    changed: called, in the thread of this object, after a link that matters came, went or changed, or one of its
        addresses; also when announcements were lost. Changes in quick succession share a call.
    relevant: whether a link of that interface name matters; by default, one that could be banger's.

    A link that gets or loses such a name matters too: its index tells that it is the same.
    """

    def __init__(self, changed: Callable[[], None], relevant: Callable[[str], bool] | None = None) -> None:
        self._changed = changed
        self._relevant = relevant if relevant is not None else managed
        self._indexes: set[int] = set()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self._tried = threading.Event()
        self._delay = _REOPEN_FIRST
        self._thread = threading.Thread(target=self._work, name="links", daemon=True)

    def start(self) -> None:
        """Returns when it listens; or when it found that it cannot, and will try again with growing delay."""
        self._thread.start()
        self._tried.wait()

    def stop(self) -> None:
        """Returns when nothing more is reported. May be repeated."""
        if self._stopped:
            return
        self._stopped = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._wake)

    def _work(self) -> None:
        while not self._stopped:
            try:
                with closing(_listener()) as listener:
                    # In this order: what comes in between is announced.
                    self._survey()
                    if self._tried.is_set():
                        self._tell()  # what happened while nobody listened
                    self._tried.set()
                    self._listen(listener.socket)
            except OSError:
                self._tried.set()
                self._rest(self._delay)
                self._delay = min(_REOPEN_LAST, self._delay * 2)

    def _listen(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._stopped:
            poll.poll()
            if not self._stopped and self._drain(listener):
                self._tell()
                self._rest(_PAUSE)

    def _drain(self, listener: socket.socket) -> bool:
        """Reads what has come, but not for ever; whether any of it matters."""
        matters = False
        for _ in range(_AT_ONCE):
            try:
                data = listener.recv(_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                # netlink(7): the buffer was full, announcements were dropped, and the socket goes on.
                self._survey()
                matters = True
                continue
            if not data:
                raise ConnectionResetError("the netlink socket is closed")
            self._delay = _REOPEN_FIRST
            for news in _read(data):
                matters = self._heard(news) or matters
        return matters

    def _heard(self, news: _News) -> bool:
        known = news.number in self._indexes
        if news.kind in (_RTM_NEWADDR, _RTM_DELADDR):
            return known
        named = self._relevant(news.name)
        if news.family == socket.AF_UNSPEC:  # the others are a bridge's view of its port, which stays when it leaves
            if named and news.kind == _RTM_NEWLINK:
                self._indexes.add(news.number)
            else:
                self._indexes.discard(news.number)
        return known or named

    def _survey(self) -> None:
        self._indexes = {index for index, name in socket.if_nameindex() if self._relevant(name)}

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception:
            # The next change is still to be told.
            sys.excepthook(*sys.exc_info())

    def _rest(self, seconds: float) -> None:
        """Waits, but no longer than until it is told to stop."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(seconds * 1000)


def _listener() -> Any:
    """A netlink socket that hears of links and their addresses."""
    # Here and not above, as in `probe`: importing it costs more than most commands do.
    from pyroute2 import IPRSocket  # noqa: PLC0415

    listener = IPRSocket()
    try:
        listener.bind(groups=_RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR)
    except BaseException:
        listener.close()
        raise
    return listener


def _read(data: bytes) -> Iterator[_News]:
    """The messages of a datagram that are about links and addresses; a mutilated rest is left out."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, start)
        end, body = start + length, start + _HEADER.size
        if length < _HEADER.size or end > len(data):
            return
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and body + _LINK.size <= end:
            family, _, index, _, _ = _LINK.unpack_from(data, body)
            yield _News(kind, family, index, _name(data, body + _LINK.size, end))
        elif kind in (_RTM_NEWADDR, _RTM_DELADDR) and body + _ADDRESS.size <= end:
            family, _, _, _, index = _ADDRESS.unpack_from(data, body)
            yield _News(kind, family, index, "")
        start += _aligned(length)


def _name(data: bytes, start: int, end: int) -> str:
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > end:
            break
        if kind == _IFLA_IFNAME:
            return data[start + _ATTRIBUTE.size : start + length].rstrip(b"\0").decode("utf-8", "replace")
        start += _aligned(length)
    return ""


def _aligned(length: int) -> int:
    """NLMSG_ALIGN and RTA_ALIGN (netlink(3), rtnetlink(3)): to 4 bytes."""
    return (length + 3) & ~3
