"""An error says the same at both ends; what breaks in between is told in words."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from reconciler.api.client import RemoteService
from reconciler.api.service import ApplyOptions, VmRef, VmVerb
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass, NotReadyError, UsageError
from tests.api.conftest import Recorder, request
from tests.fakes import service as fake
from tests.fakes.service import FakeService

DEV = VmRef(environment="demo", name="dev")
ERRORS = [
    (UsageError("there is no vm x", hint="did you mean y?"), 422, 2),
    (NotReadyError("vm dev is late", replay="banger wait dev"), 504, 4),
    (BangerError("the disk is full", hint="make room"), 500, 1),
    (BangerError("the mirror is away", error_class=ErrorClass.RETRYABLE), 503, 1),
    (CancelledError(), 503, 130),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=lambda e: type(e).__name__)
def test_an_answer_that_is_an_error(
    service: FakeService, remote: RemoteService, path: Path, error: BangerError, status: int, code: int
) -> None:
    service.error = error
    with pytest.raises(type(error)) as caught:
        remote.vms(None)
    with pytest.raises(type(error)) as streamed:
        remote.vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder())
    for found in (caught.value, streamed.value):
        assert type(found) is type(error)
        assert (found.cause, found.hint, found.replay) == (error.cause, error.hint, error.replay)
        assert found.error_class is error.error_class
        assert found.exit_code == code

    answered, headers, body = request(path, "GET", "/v1/vms")
    assert answered == status
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert (problem["status"], problem["exitCode"], problem["detail"]) == (status, code, error.cause)


def test_a_defect_is_one_line_and_the_server_lives_on(service: FakeService, remote: RemoteService) -> None:
    for defect in (ZeroDivisionError("by zero"), KeyboardInterrupt()):
        service.error = defect
        with pytest.raises(BangerError):
            remote.vms(None)
        with pytest.raises(BangerError):
            remote.vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder())
    service.error = ZeroDivisionError("by zero")
    with pytest.raises(BangerError, match="unexpected error: ZeroDivisionError: by zero"):
        remote.vms(None)
    service.error = None
    assert remote.vms(None) == service.objects


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="no controller answers") as caught:
        RemoteService(tmp_path / "none.sock").info()
    assert caught.value.error_class.worth_retrying


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",
        b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_somebody_else_is_there(tmp_path: Path, answer: bytes) -> None:
    """Of another version, or no controller at all: an error in words, never a traceback."""
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(BangerError):
            RemoteService(path).info()
        thread.join()


def test_a_controller_that_ends_in_mid_operation(tmp_path: Path) -> None:
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b'HTTP/1.1 200 OK\r\n\r\nevent: note\ndata: {"message": "hm"}\n\n: still here\n\n')

        thread = threading.Thread(target=serve)
        thread.start()
        recorder = Recorder()
        with pytest.raises(BangerError, match="ended before the operation did"):
            RemoteService(path).vm(VmVerb.STOP, DEV, ApplyOptions(), recorder)
        assert recorder.told == [("note", "hm")]
        thread.join()


def test_ctrl_c_leaves_the_operation_alone_and_says_so(service: FakeService, remote: RemoteService) -> None:
    service.the_plan = fake.creation()

    class Interrupted(Recorder):
        def started(self, step: object) -> None:
            raise KeyboardInterrupt

    recorder = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        remote.delete("demo", ApplyOptions(), recorder, lambda plan: True)
    [(kind, message)] = recorder.told
    assert kind == "note"
    assert "goes on" in message


def test_a_reporters_own_defect_is_not_the_controllers_fault(remote: RemoteService) -> None:
    class Broken(Recorder):
        def started(self, step: object) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        remote.delete("demo", ApplyOptions(), Broken(), lambda plan: True)
