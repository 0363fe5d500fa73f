"""What following along costs whoever publishes."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.api.broadcast import QUEUED
from reconciler.api.server import Server
from tests.api.conftest import connected, eventually
from tests.bench.conftest import Measurement, Record
from tests.fakes.service import FakeService, event

pytestmark = pytest.mark.bench

READERS = 1000
ROUNDS = 40
BATCH = 25


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of each connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def readers(server: Server) -> int:
    assert server._broadcaster is not None
    return len(server._broadcaster)


def cost(server: Server, first: int) -> float:
    """Seconds that publishing a batch takes, on average; batches are apart, as the events of passes are."""
    total = 0.0
    for number in range(ROUNDS):
        batch = [event(first + number * BATCH + index, message="x" * 2000) for index in range(BATCH)]
        began = time.perf_counter()
        for news in batch:
            server.publish(news)
        total += time.perf_counter() - began
        time.sleep(0.01)
    return total / ROUNDS


@pytest.mark.usefixtures("many_files")
def test_a_thousand_stalled_readers_do_not_slow_who_publishes(record: Record) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "c.sock"
        server = Server(FakeService(), path, uid=os.geteuid())
        server.start()
        stack.callback(server.stop)
        # In both rounds one reader keeps up: with none at all there would be nothing to do.
        keen = follow(stack, path)
        reading = threading.Thread(target=drain, args=(keen,))
        reading.start()
        stack.callback(reading.join)
        stack.callback(keen.shutdown, socket.SHUT_RDWR)
        eventually(lambda: readers(server) == 1)
        alone = cost(server, 1)

        for _ in range(READERS):
            follow(stack, path)
        eventually(lambda: readers(server) == READERS + 1)
        crowded = cost(server, 10_000)
        # They were let go on the way, so both the fanning out and the letting go are in the figure.
        assert BATCH * ROUNDS > QUEUED
        eventually(lambda: readers(server) == 1)
    record(
        Measurement(
            promise=f"publishing an event while {READERS} readers read nothing",
            ours=f"{crowded / BATCH * 1e6:.1f} µs",
            theirs=f"{alone / BATCH * 1e6:.1f} µs with one that reads",
            value=crowded / alone,
            limit=3.0,
            unit="x",
        )
    )


def follow(stack: ExitStack, path: Path) -> socket.socket:
    client = stack.enter_context(connected(path))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
    return client


def drain(client: socket.socket) -> None:
    while client.recv(1 << 20):
        pass
