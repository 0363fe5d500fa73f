"""A web server on loopback that does what is asked of it, right or wrong: a list of answers, one for each request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[socket.socket, dict[str, str]], None]
"""Writes to the connection, and may leave it open; the request's headers are in lower case."""


def reply(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    length: int | None = None,
    **headers: str,
) -> Answer:
    """An answer with a `Content-Length`, which may lie."""

    def answer(connection: socket.socket, request: dict[str, str]) -> None:
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


def rest_of(body: bytes, etag: str) -> Answer:
    """The range that is asked for, if the validator still holds; else all of it."""

    def answer(connection: socket.socket, request: dict[str, str]) -> None:
        first = int(request.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if first and request.get("if-range") == etag:
            told = f"bytes {first}-{len(body) - 1}/{len(body)}"
            reply(body[first:], status="206 Partial Content", Content_Range=told, ETag=etag)(connection, request)
        else:
            reply(body, ETag=etag)(connection, request)

    return answer


class Server:
    """What it was asked, and where it is."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self.requests: list[dict[str, str]] = []
        self.done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/file"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        open_connections = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            head = b""
            while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
                head += piece
            lines = head.decode().split("\r\n")[1:]
            headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
            self.requests.append(headers)
            answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
            try:
                answer(connection, headers)
            except OSError:
                pass  # the other side has had enough
            if answer is stall:
                open_connections.append(connection)
            else:
                connection.close()
        for connection in open_connections:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def stall(connection: socket.socket, request: dict[str, str]) -> None:
    """Begins well, then says no more."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    """The last answer is repeated."""
    server = Server(list(answers))
    try:
        yield server
    finally:
        server.close()
