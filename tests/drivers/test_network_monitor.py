"""Hearing of links: which announcements count, and what happens when they are lost."""

from __future__ import annotations

import errno
import gc
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from reconciler.drivers.network import monitor
from reconciler.drivers.network.monitor import LinkWatch

PATIENCE = 60.0  # seconds; only a failing test waits for it
BRIDGE, TAP, FOREIGN = "bgb-0123456789", "bgt-0123456789", "veth12ab34"
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE = 16, 17, 20, 21, 24
AF_BRIDGE = 7  # linux/socket.h; Python has no name for it


def attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(padding)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(kind: int, index: int, name: str, family: int = socket.AF_UNSPEC) -> bytes:
    attributes = attribute(33, b"\1") + attribute(3, name.encode() + b"\0") + attribute(4, bytes(4))
    return message(kind, struct.pack("=BxHiII", family, 1, index, 0, 0) + attributes)


def address(kind: int, index: int) -> bytes:
    return message(kind, struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, index) + attribute(2, bytes(4)))


class Fake:
    """Stands for pyroute2's socket: a kernel that says what a test wants."""

    def __init__(self) -> None:
        self.socket, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def close(self) -> None:
        self.socket.close()


class Listening:
    """A started watch with its fake kernel. `opened` gets each new socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: dict[int, str]) -> None:
        self.calls: queue.Queue[None] = queue.Queue()
        self.opened: queue.Queue[Fake] = queue.Queue()
        self.names = names
        monkeypatch.setattr(monitor, "_listener", self._open)
        monkeypatch.setattr(socket, "if_nameindex", lambda: list(self.names.items()))
        self.watch = LinkWatch(lambda: self.calls.put(None))
        self.watch.start()
        self.fake = self.opened.get(timeout=PATIENCE)

    def _open(self) -> Fake:
        fake = Fake()
        self.opened.put(fake)
        return fake

    def say(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.fake.kernel.send(datagram)

    def called(self) -> None:
        self.calls.get(timeout=PATIENCE)

    def heard(self, *datagrams: bytes) -> bool:
        """Whether one of these matters."""
        matters = False
        for datagram in datagrams:
            for news in monitor._read(datagram):
                matters = self.watch._heard(news) or matters
        return matters


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    listening = Listening(monkeypatch, {1: "lo", 2: FOREIGN, 3: BRIDGE})
    yield listening
    listening.watch.stop()


@pytest.mark.parametrize(
    ("datagram", "matters"),
    [
        (link(NEWLINK, 9, TAP), True),
        (link(NEWLINK, 3, BRIDGE), True),
        (link(DELLINK, 3, BRIDGE), True),
        (link(NEWLINK, 3, "renamed"), True),
        (link(NEWLINK, 2, TAP), True),
        (link(DELLINK, 9, TAP, AF_BRIDGE), True),
        (address(NEWADDR, 3), True),
        (address(DELADDR, 3), True),
        (link(NEWLINK, 2, FOREIGN), False),
        (link(DELLINK, 2, FOREIGN), False),
        (link(NEWLINK, 9, "bgb-01234567890"), False),
        (link(NEWLINK, 9, "bgx-0123456789"), False),
        (address(NEWADDR, 2), False),
        (message(NEWROUTE, bytes(12)), False),
        (link(NEWLINK, 2, FOREIGN) + link(NEWLINK, 2, FOREIGN) + link(NEWLINK, 9, TAP), True),
    ],
)
def test_what_matters(listening: Listening, datagram: bytes, matters: bool) -> None:
    assert listening.heard(datagram) is matters


def test_a_link_is_followed_through_its_names(listening: Listening) -> None:
    assert listening.heard(link(NEWLINK, 3, "elsewhere"))
    assert not listening.heard(link(NEWLINK, 3, "elsewhere"))
    assert not listening.heard(address(NEWADDR, 3))
    assert listening.heard(link(NEWLINK, 3, TAP))
    assert listening.heard(address(NEWADDR, 3))


def test_a_port_that_leaves_its_bridge_is_still_there(listening: Listening) -> None:
    assert listening.heard(link(NEWLINK, 9, TAP))
    assert listening.heard(link(DELLINK, 9, TAP, AF_BRIDGE))
    assert listening.heard(address(NEWADDR, 9))
    assert listening.heard(link(DELLINK, 9, TAP))
    assert not listening.heard(address(NEWADDR, 9))


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_mutilated_message_is_left_out(cut: int) -> None:
    whole = link(NEWLINK, 9, TAP)
    assert len(list(monitor._read(whole + whole[:cut]))) == 1
    assert list(monitor._read(struct.pack("=IHHII", 0, NEWLINK, 0, 0, 0) + bytes(64))) == []
    assert [
        news.name for news in monitor._read(message(NEWLINK, struct.pack("=BxHiII", 0, 1, 9, 0, 0) + bytes(8)))
    ] == [""]


def test_a_change_is_told(listening: Listening) -> None:
    listening.say(link(NEWLINK, 2, FOREIGN), link(DELLINK, 3, BRIDGE))
    listening.called()


def test_a_burst_is_a_few_calls(listening: Listening) -> None:
    for _ in range(1000):
        listening.say(link(NEWLINK, 3, BRIDGE))
    listening.called()
    listening.say(link(DELLINK, 3, BRIDGE))
    listening.called()
    listening.watch.stop()
    assert listening.calls.qsize() < 20


def test_calls_keep_their_distance(listening: Listening) -> None:
    began = time.monotonic()
    for _ in range(100):
        listening.say(link(NEWLINK, 3, BRIDGE))
        time.sleep(0.002)
    listening.watch.stop()
    assert listening.calls.qsize() <= (time.monotonic() - began) / monitor._PAUSE + 1


def test_strangers_are_told_of_to_nobody(listening: Listening) -> None:
    for _ in range(1000):
        listening.say(link(NEWLINK, 2, FOREIGN))
    listening.say(link(NEWLINK, 3, BRIDGE))
    listening.called()
    listening.watch.stop()
    assert listening.calls.empty()


def test_lost_announcements_count_as_a_change(listening: Listening) -> None:
    class Overrun:
        replies = iter([OSError(errno.ENOBUFS, "No buffer space available"), BlockingIOError()])

        def recv(self, size: int, flags: int) -> bytes:
            raise next(self.replies)

    listening.names = {7: TAP}
    assert listening.watch._drain(Overrun())  # type: ignore[arg-type]
    assert listening.heard(address(NEWADDR, 7))
    assert not listening.heard(address(NEWADDR, 3))


def test_a_dead_socket_is_opened_again(listening: Listening) -> None:
    first = listening.fake
    first.kernel.close()
    listening.fake = listening.opened.get(timeout=PATIENCE)
    listening.called()  # nobody knows what happened in between
    listening.say(link(NEWLINK, 3, BRIDGE))
    listening.called()
    assert first.socket.fileno() == -1


def test_opening_is_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, called, naps = Fake(), threading.Event(), []
    attempts = iter([OSError(errno.EMFILE, "Too many open files")] * 12)

    def open_() -> Fake:
        for problem in attempts:
            raise problem
        return fake

    monkeypatch.setattr(monitor, "_listener", open_)
    monkeypatch.setattr(LinkWatch, "_rest", lambda _, seconds: naps.append(seconds))
    watch = LinkWatch(called.set)
    watch.start()
    assert called.wait(PATIENCE)
    watch.stop()
    assert naps[:12] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]


def test_a_callback_that_raises_ends_nothing(
    listening: Listening, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        listening.calls.put(None)
        raise RuntimeError("no room")

    monkeypatch.setattr(listening.watch, "_changed", fail)
    for _ in range(2):
        listening.say(link(NEWLINK, 3, BRIDGE))
        listening.called()
    listening.watch.stop()
    assert "no room" in capsys.readouterr().err


def test_it_ends_and_leaves_nothing_open() -> None:
    gc.collect()  # the sockets of other tests
    before, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    watches = [LinkWatch(lambda: None) for _ in range(3)]
    for watch in watches:
        watch.start()
        watch.stop()
        watch.stop()
    LinkWatch(lambda: None).stop()
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
