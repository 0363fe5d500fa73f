"""Many clients, and clients that leave: what has begun goes on, and nobody starves another."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.api import streams
from reconciler.api.app import CHANGES, QUICK_THREADS, WAITS
from reconciler.api.client import RemoteService
from reconciler.api.server import Server
from reconciler.api.service import ApplyOptions, Reporter, Source, VmRef, VmVerb, WaitFor
from reconciler.lib.errors import BangerError, CancelledError
from tests.api.conftest import PATIENCE, Recorder, connected, eventually, request, serving
from tests.fakes import service as fake
from tests.fakes.service import FakeService

DEV = VmRef(environment="demo", name="dev")
SOURCE = Source(path=Path("/home/me/banger.yaml"), digest="0" * 64)


class Slow(FakeService):
    """A service whose operations and waits take until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ended: list[str] = []

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        self.begun.release()
        reporter.note("begun")
        assert self.go.wait(PATIENCE)
        reporter.note("nearly done")
        self.ended.append("vm")

    def wait(
        self,
        environment: str,
        names: Sequence[str],
        timeout: float | None,
        reporter: Reporter,
        condition: WaitFor = WaitFor.READY,
    ) -> None:
        self.begun.release()
        reporter.note("begun")
        assert self.go.wait(PATIENCE)
        try:
            reporter.waiting(self.objects)
        except CancelledError:
            self.ended.append("abandoned")
            raise
        self.ended.append("wait")


@pytest.fixture
def slow(path: Path) -> Iterator[Slow]:
    service = Slow()
    with serving(service, path):
        yield service
        service.go.set()


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def begin(path: Path, where: str, body: bytes = b"") -> None:
    """Begins an operation, and leaves as soon as it has."""
    with connected(path) as client:
        head = f"POST {where} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}\r\n".encode() + body)
        data = b""
        while b"begun" not in data:
            data += client.recv(65536)


def test_an_operation_outlives_its_client(slow: Slow, path: Path) -> None:
    begin(path, "/v1/vms/demo/dev/stop")
    slow.go.set()
    eventually(lambda: slow.ended == ["vm"])


def test_a_wait_ends_with_its_client(slow: Slow, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    begin(path, "/v1/wait", b'{"environment": "demo"}')
    # The server learns of the end of a connection when it looks at it; a request on another one comes after that.
    assert RemoteService(path).environments() == ["demo"]
    slow.go.set()
    eventually(lambda: slow.ended == ["abandoned"])


def test_an_operation_outlives_the_server(slow: Slow, path: Path, tmp_path: Path) -> None:
    """A controller that is told to end cuts its clients off after a while; the work is its own business."""
    other = tmp_path / "run" / "other.sock"
    service = Slow()
    caught: list[BangerError] = []

    def stop_vm() -> None:
        try:
            RemoteService(other).vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder())
        except BangerError as error:
            caught.append(error)

    with serving(service, other) as server:
        client = in_background(stop_vm)
        assert service.begun.acquire(timeout=PATIENCE)
        server.stop(0.05)
        client.join(PATIENCE)
        assert caught
        service.go.set()
        eventually(lambda: service.ended == ["vm"])


def test_a_stop_lets_operations_end(path: Path) -> None:
    service = Slow()
    recorder = Recorder()
    with serving(service, path) as server:
        client = in_background(lambda: RemoteService(path).vm(VmVerb.STOP, DEV, ApplyOptions(), recorder))
        assert service.begun.acquire(timeout=PATIENCE)
        stopping = in_background(lambda: server.stop(PATIENCE))
        service.go.set()
        client.join(PATIENCE)
        stopping.join(PATIENCE)
        assert not stopping.is_alive()
    assert recorder.told == [("note", "begun"), ("note", "nearly done")]


def test_operations_leave_room_for_questions_and_waits(slow: Slow, path: Path) -> None:
    remote = RemoteService(path)
    changes = [in_background(lambda: remote.vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder())) for _ in range(CHANGES)]
    waits = [in_background(lambda: remote.wait("demo", [], None, Recorder())) for _ in range(WAITS)]
    for _ in range(CHANGES + WAITS):
        assert slow.begun.acquire(timeout=PATIENCE)
    assert remote.vms(None) == slow.objects

    for ask in (
        lambda: remote.vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder()),
        lambda: remote.wait("demo", [], None, Recorder()),
    ):
        with pytest.raises(BangerError, match="too many operations") as caught:
            ask()
        assert (caught.value.exit_code, caught.value.error_class.worth_retrying) == (1, True)

    slow.go.set()
    for thread in (*changes, *waits):
        thread.join(PATIENCE)
    assert len(slow.ended) == CHANGES + WAITS
    remote.vm(VmVerb.STOP, DEV, ApplyOptions(), Recorder())


def test_fifty_clients_at_once(server: Server, service: FakeService, path: Path) -> None:
    service.objects = [fake.vm_status(f"vm-{number}") for number in range(20)]
    remote = RemoteService(path)
    expected = remote.vms(None)
    together = threading.Barrier(50)

    def ask(number: int) -> bool:
        together.wait()
        result = remote.apply(
            fake.desired(f"env-{number}"),
            SOURCE,
            ApplyOptions(operation=f"op-{number}"),
            Recorder(),
            lambda plan: True,
        )
        return result.approved and remote.vms(None) == expected

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(ask, range(50)))
    applied = {call[1]: call[3].operation for call in service.calls if call[0] == "apply"}
    assert applied == {f"env-{number}": f"op-{number}" for number in range(50)}


def test_more_questions_than_threads_wait_their_turn(path: Path) -> None:
    service = FakeService()
    go = threading.Event()
    service.environments = lambda: [str(go.wait(PATIENCE))]  # type: ignore[method-assign]
    with serving(service, path), ThreadPoolExecutor(3 * QUICK_THREADS) as pool:
        asked = [pool.submit(RemoteService(path).environments) for _ in range(3 * QUICK_THREADS)]
        go.set()
        assert [question.result(PATIENCE) for question in asked] == [["True"]] * len(asked)


def test_a_client_that_does_not_read_loses_progress_and_nothing_else(path: Path) -> None:
    """A long build tells much; what waits for a client that is not there must not fill the memory."""
    service = FakeService()
    step = service.the_plan.steps[0]
    told = 20_000

    def vm(verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        reporter.started(step)
        for number in range(told):
            reporter.progress(step, number / told, "x" * 100)
        reporter.note("the end")

    service.vm = vm  # type: ignore[method-assign]
    with serving(service, path):
        status, _, body = request(path, "POST", "/v1/vms/demo/dev/start")
    names = [line[7:] for line in body.splitlines() if line.startswith(b"event: ")]
    assert status == 200
    assert names[0] == b"started"
    assert names[-2:] == [b"note", b"result"]
    assert json.loads(body.splitlines()[-2].removeprefix(b"data: ")) == {"environment": "demo", "name": "dev"}
    assert 0 < names.count(b"progress") <= told


def test_a_request_that_is_cut_off(server: Server, remote: RemoteService, path: Path) -> None:
    for part in (b"", b"GET /v1/vms HT", b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
        with connected(path) as client:
            client.sendall(part)
    assert remote.environments() == ["demo"]
