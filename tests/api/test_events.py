"""Events as a stream: none missing, none twice, nobody held up by who does not read."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.api import broadcast, streams
from reconciler.api.broadcast import QUEUED
from reconciler.api.client import RemoteService
from reconciler.api.server import Server
from reconciler.lib.errors import BangerError
from reconciler.model.events import Event
from tests.api.conftest import PATIENCE, connected, eventually, request, serving
from tests.fakes.service import FakeService, event


def readers(server: Server) -> int:
    assert server._broadcaster is not None
    return len(server._broadcaster)


class Store(FakeService):
    """A service whose events arrive while somebody reads: `during` is called in mid-read, once."""

    during = staticmethod(lambda: None)

    def events(self, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
        found = list(super().events(environment, after, follow))
        self.during()
        self.during = lambda: None  # type: ignore[method-assign]
        yield from found


def follow(path: Path, query: str = "", **headers: str) -> socket.socket:
    """A stream of events that is read by hand, after its head."""
    client = connected(path)
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
    client.sendall(f"GET /v1/events{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{lines}\r\n".encode())
    return client


def until(client: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        part = client.recv(65536)
        assert part, data
        data += part
    return data


def test_the_past_and_then_what_happens(server: Server, service: FakeService, remote: RemoteService) -> None:
    service.happened = [event(1), event(2, environment="other"), event(3)]
    with closing(remote.events("demo", None, True)) as found:
        assert [next(found).id, next(found).id] == [1, 3]
        for news in (event(4, environment="other"), event(5, message="größer\nals zuvor"), event(6)):
            server.publish(news)
        assert next(found) == event(5, message="größer\nals zuvor")
        assert next(found) == event(6)
    eventually(lambda: readers(server) == 0)


def test_after_an_event(service: FakeService, remote: RemoteService) -> None:
    service.happened = [event(n) for n in range(1, 90)]
    with closing(remote.events(None, 3, True)) as found:
        assert [next(found).id for _ in range(86)] == list(range(4, 90))


def test_what_happens_while_the_past_is_read_comes_once(path: Path) -> None:
    """Event 2 is both stored and published in mid-read, event 3 is only published: each arrives once."""
    service = Store(happened=[event(1)])
    with serving(service, path) as server:

        def during() -> None:
            service.happened.append(event(2))
            server.publish(event(1))
            server.publish(event(2))
            server.publish(event(3))

        service.during = during  # type: ignore[method-assign]
        with closing(RemoteService(path).events(None, None, True)) as found:
            assert [next(found).id for _ in range(3)] == [1, 2, 3]


def test_a_browser_that_connects_again_goes_on_where_it_was(server: Server, service: FakeService, path: Path) -> None:
    service.happened = [event(n) for n in range(1, 8)]
    with follow(path, "?after=2", Last_Event_ID="5") as client:
        data = until(client, b"id: 7\n")
    assert b"id: 6\n" in data
    assert b"id: 5\n" not in data


def test_a_stream_without_following_ends(server: Server, service: FakeService, path: Path) -> None:
    service.happened = [event(n) for n in range(1, 4)]
    status, headers, body = request(path, "GET", "/v1/events?follow=false", Accept="text/event-stream")
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    data = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]
    assert data == [one.to_json() for one in service.happened]
    assert [line for line in body.splitlines() if line.startswith(b"id: ")] == [b"id: 1", b"id: 2", b"id: 3"]


def test_an_error_before_the_first_event(server: Server, service: FakeService, remote: RemoteService) -> None:
    service.error = BangerError("the disk is gone")
    with pytest.raises(BangerError, match="the disk is gone"):
        next(remote.events(None, None, True))
    eventually(lambda: readers(server) == 0)


def test_the_end_of_the_server_ends_the_stream(server: Server, service: FakeService, remote: RemoteService) -> None:
    service.happened = [event(1)]
    found = remote.events(None, None, True)
    next(found)
    with follow(server._path) as raw:
        until(raw, b"id: 1\n")
        server.stop(PATIENCE)
        # The answer is whole: it was ended, not cut off.
        assert until(raw, b"0\r\n\r\n").endswith(b"0\r\n\r\n")
    with pytest.raises(BangerError, match="has ended"):
        next(found)


def test_a_slow_reader_is_let_go_and_takes_up_where_it_was(
    server: Server, service: FakeService, path: Path, remote: RemoteService
) -> None:
    quick = remote.events(None, 0, True)
    with follow(path) as slow:
        until(slow, b"\r\n\r\n")
        eventually(lambda: readers(server) == 1)
        heard: list[int] = []
        done = threading.Event()
        total = 8 * QUEUED

        def hear() -> None:
            for one in quick:
                heard.append(one.id)
                if one.id == total:
                    done.set()
                    return

        thread = threading.Thread(target=hear)
        thread.start()
        eventually(lambda: readers(server) == 2)
        for number in range(1, total + 1):
            news = event(number, message="x" * 4000)
            service.happened.append(news)
            server.publish(news)
            if number % 100 == 0:  # faster than anybody could read is not what is to be shown
                eventually(lambda n=number: not heard or heard[-1] >= n - QUEUED // 2)  # type: ignore[misc]
        assert done.wait(PATIENCE)
        thread.join()
        assert heard == list(range(1, total + 1))
        quick.close()
        eventually(lambda: readers(server) == 0)

        data = until(slow, b"\r\n0\r\n\r\n")
        ids = [int(line[4:]) for line in data.splitlines() if line.startswith(b"id: ")]
        assert ids == list(range(1, len(ids) + 1))
        assert QUEUED <= len(ids) < total
        [lost] = [data.splitlines()[i + 1] for i, line in enumerate(data.splitlines()) if line == b"event: lost"]
        assert json.loads(lost.removeprefix(b"data: ")) == {"after": ids[-1]}


def test_a_client_that_was_let_go_comes_again_by_itself(
    server: Server, service: FakeService, remote: RemoteService
) -> None:
    """Whoever iterates sees every event once, and nothing of what happened to its connection."""
    found = remote.events(None, 0, True)
    service.happened = [event(1)]
    assert next(found).id == 1
    total = 6 * QUEUED
    for number in range(2, total + 1):
        news = event(number, message="x" * 4000)
        service.happened.append(news)
        server.publish(news)
    assert [next(found).id for _ in range(total - 1)] == list(range(2, total + 1))
    found.close()
    assert len([call for call in service.calls if call[0] == "events"]) > 1, "it was never let go"


def test_who_reads_nothing_at_all_is_cut_off(path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALLED_SECONDS", 0.1)
    with serving(service, path) as server, follow(path) as client:
        until(client, b"\r\n\r\n")
        eventually(lambda: readers(server) == 1)
        for number in range(1, 4 * QUEUED):
            server.publish(event(number, message="x" * 4000))
        hung_up = select.poll()
        hung_up.register(client, 0)
        assert hung_up.poll(PATIENCE * 1000)
        # What was under way can still be read; then the connection is at its end, without the end of the answer.
        data = b""
        try:
            while part := client.recv(1 << 20):
                data += part
        except ConnectionResetError:
            pass
        assert not data.endswith(b"0\r\n\r\n")


def test_silence_has_a_heartbeat(path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "HEARTBEAT_SECONDS", 0.02)
    with serving(service, path) as server:
        assert server._broadcaster is not None
        assert server._broadcaster._beat is None
        with follow(path) as client:
            data = until(client, broadcast.HEARTBEAT)
            data += until(client, broadcast.HEARTBEAT)
            assert b"data:" not in data
        eventually(lambda: readers(server) == 0)
        # Nobody listens, so nothing wakes up.
        assert server._broadcaster._beat is None


def test_publishing_to_a_server_that_has_ended(server: Server) -> None:
    server.publish(event(1))
    server.stop()
    server.publish(event(2))
