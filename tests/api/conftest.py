"""A server over a fake service, at a real socket."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.api.client import RemoteService
from reconciler.api.server import Server
from reconciler.lib.clock import SystemClock
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Step
from reconciler.model.status import ObjectStatus
from tests.fakes.service import FakeService

PATIENCE = 20.0


class Recorder:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def started(self, step: Step) -> None:
        self.told.append(("started", step))

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        self.told.append(("progress", step, fraction, message))

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        self.told.append(("retrying", step, str(error), delay))

    def finished(self, step: Step, outcome: Outcome) -> None:
        self.told.append(("finished", step, outcome))

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        self.told.append(("waiting", list(vms)))

    def note(self, message: str) -> None:
        self.told.append(("note", message))


@contextmanager
def serving(service: Any, path: Path) -> Iterator[Server]:
    server = Server(service, path, uid=os.geteuid())
    server.start()
    try:
        yield server
    finally:
        server.stop(2.0)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "controller.sock"


@pytest.fixture
def server(service: FakeService, path: Path) -> Iterator[Server]:
    with serving(service, path) as running:
        yield running


@pytest.fixture
def remote(server: Server, path: Path) -> RemoteService:
    return RemoteService(path)


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    return client


class Connection(http.client.HTTPConnection):
    """A plain HTTP client that checks nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path)


def request(
    path: Path, method: str, where: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = Connection(path)
    try:
        connection.request(method, where, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    done = threading.Event()
    deadline = SystemClock().monotonic() + PATIENCE
    while not holds():
        assert SystemClock().monotonic() < deadline, "it never came to be"
        done.wait(0.005)
