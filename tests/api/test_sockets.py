"""The socket: for its owner alone, never taken from one who lives, always from one who does not."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler.api.client import RemoteService
from reconciler.api.server import Server
from reconciler.lib.errors import BangerError
from tests.api.conftest import request, serving
from tests.fakes.service import FakeService

# Connects as whoever runs it, asks, and prints what came back.
_ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect(sys.argv[1])
    try:
        client.sendall(b"GET /v1/info HTTP/1.0\\r\\n\\r\\n")
        print(client.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_the_owners_alone(server: Server, path: Path) -> None:
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def test_a_folder_that_others_may_read_is_left_as_it_is(path: Path) -> None:
    """The helper's socket, which every user may connect to, can be in the same one."""
    path.parent.mkdir(mode=0o755)
    with serving(FakeService(), path):
        assert mode(path.parent) == 0o755


def test_a_folder_that_others_may_write_to_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(BangerError, match="others can write"):
        Server(FakeService(), path, uid=os.geteuid()).start()
    assert not path.exists()


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="at most 107 bytes"):
        Server(FakeService(), tmp_path / ("x" * 120), uid=os.geteuid()).start()


def test_it_goes_with_its_server(path: Path) -> None:
    with serving(FakeService(), path):
        assert path.is_socket()
    assert not path.exists()


def test_a_dead_process_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    with serving(FakeService(), path):
        assert RemoteService(path).environments() == ["demo"]


def test_a_second_server_is_refused_and_the_first_is_named(server: Server, remote: RemoteService, path: Path) -> None:
    with pytest.raises(BangerError, match=f"process {os.getpid()} listens"):
        Server(FakeService(), path, uid=os.geteuid()).start()
    assert remote.environments() == ["demo"]


def test_a_living_strangers_socket_is_left_alone(path: Path) -> None:
    """One that knows nothing of our lock."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        with pytest.raises(BangerError, match=f"process {os.getpid()} listens"):
            Server(FakeService(), path, uid=os.geteuid()).start()
        assert path.is_socket()


def test_of_many_that_start_at_once_one_serves(path: Path) -> None:
    servers = [Server(FakeService(), path, uid=os.geteuid()) for _ in range(8)]
    began = threading.Barrier(len(servers))
    refused: list[Server] = []

    def start(server: Server) -> None:
        began.wait()
        try:
            server.start()
        except BangerError:
            refused.append(server)

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == len(servers) - 1
    assert RemoteService(path).environments() == ["demo"]
    for server in servers:
        server.stop()
    assert not path.exists()


def test_a_socket_that_somebody_put_in_our_place_is_not_ours_to_remove(path: Path) -> None:
    with serving(FakeService(), path):
        path.unlink()
        path.touch()
    assert path.exists()


def test_it_can_start_again(path: Path) -> None:
    for _ in range(3):
        with serving(FakeService(), path):
            assert request(path, "GET", "/v1/environments")[0] == 200


@pytest.mark.host
def test_another_uid_gets_nothing(tmp_path: Path) -> None:
    """Even where the files' modes let it in: the kernel says who connects."""
    path = Path(f"/run/banger-test-{os.getpid()}/c.sock")

    def ask(uid: int) -> str:
        argv = ["setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups", "--", sys.executable, "-I", "-c", _ASK]
        return subprocess.run([*argv, str(path)], capture_output=True, text=True, check=True).stdout.strip()

    service = FakeService()
    server = Server(service, path, uid=1234)
    server.start()
    try:
        path.chmod(0o666)
        path.parent.chmod(0o755)
        assert ask(1234).startswith("b'HTTP/1.1 200")
        assert ask(0).startswith("b'HTTP/1.1 200")
        service.calls.clear()
        assert ask(65534) == "b''"
        assert service.calls == []
        assert ask(1234).startswith("b'HTTP/1.1 200")
    finally:
        server.stop()
        path.with_name("c.sock.lock").unlink()
        path.parent.rmdir()
