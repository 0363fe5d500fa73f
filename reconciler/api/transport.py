"""Requests to a controller: HTTP over its Unix socket, by the standard library's client."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.api.problems import from_problem
from reconciler.lib.errors import BangerError, ErrorClass

OPERATION_HEADER = "Banger-Operation"
_CONNECT_SECONDS = 5.0
# A plan or a status of a thousand VMs takes a second; on a busy host some.
_ANSWER_SECONDS = 120.0
# A stream has a heartbeat each 15 s.
_SILENCE_SECONDS = 60.0
_LINE_LIMIT = 64 << 20
_HINT = "banger controller runs one; without one, the same command does the work itself"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_SECONDS)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


class Answer:
    """The events of a stream as they come: pairs of name and data. Ends when the server ends it."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, path: Path) -> None:
        self._connection = connection
        self._response = response
        self._path = path

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name = ""
        while line := self._line():
            key, _, value = line.partition(b":")
            if key == b"event":
                name = value.strip().decode()
            elif key == b"data":
                with misunderstood():
                    data = json.loads(value)
                yield name, data

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def _line(self) -> bytes:
        with _translated(self._path):
            return self._response.readline(_LINE_LIMIT)


class Transport:
    """Sends requests to the socket at `path`, each over a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: Any = None, *, operation: str = "") -> Any:
        """One answer, as JSON. Raises the error that the controller answers with."""
        connection = _UnixConnection(self._path, _ANSWER_SECONDS)
        try:
            response = self._send(connection, method, path, body=body, accept="application/json", operation=operation)
            with _translated(self._path):
                text = response.read()
            with misunderstood():
                return json.loads(text)
        finally:
            connection.close()

    def stream(self, method: str, path: str, body: Any = None, *, operation: str = "") -> Answer:
        """An answer that goes on. The caller closes it; what the controller does goes on without."""
        connection = _UnixConnection(self._path, _SILENCE_SECONDS)
        try:
            response = self._send(connection, method, path, body=body, accept="text/event-stream", operation=operation)
        except BaseException:
            connection.close()
            raise
        return Answer(connection, response, self._path)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        *,
        body: Any,
        accept: str,
        operation: str,
    ) -> http.client.HTTPResponse:
        sent = {"Accept": accept, **({OPERATION_HEADER: operation} if operation else {})}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        with _translated(self._path):
            try:
                connection.request(method, path, data, sent)
            except BrokenPipeError:
                pass  # it did not want all of the body, and has said why
            response = connection.getresponse()
            if response.status == http.HTTPStatus.OK:
                return response
            text = response.read()
        raise _refusal(response.status, text)


@contextmanager
def misunderstood() -> Iterator[None]:
    """What the other side says makes no sense here: it is another version of banger."""
    try:
        yield
    except BangerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BangerError(
            f"the controller's answer cannot be read ({type(problem).__name__}: {problem})",
            hint="it may be of another version; restart it",
        ) from problem


def _refusal(status: int, text: bytes) -> BangerError:
    try:
        return from_problem(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        words = text.decode(errors="replace").strip()[:200]
        return BangerError(
            f"the controller answers {status}: {words}",
            error_class=ErrorClass.RETRYABLE if status == http.HTTPStatus.SERVICE_UNAVAILABLE else ErrorClass.TERMINAL,
        )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What can go wrong between two processes, as an error that a user can read."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError):
        raise _gone(f"no controller answers at {path}") from None
    except PermissionError:
        raise BangerError(f"{path} belongs to another user", hint="only its owner and root are answered") from None
    except TimeoutError:
        raise _gone(f"the controller at {path} does not answer in time") from None
    except (http.client.HTTPException, OSError) as problem:
        words = str(problem) or type(problem).__name__
        raise _gone(f"the connection to the controller at {path} broke off: {words}") from None


def _gone(cause: str) -> BangerError:
    return BangerError(cause, hint=_HINT, error_class=ErrorClass.RETRYABLE)
