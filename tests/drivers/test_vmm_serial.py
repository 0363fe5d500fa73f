"""The serial line has room for one, and who comes to save a guest's disks takes it over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm import serial
from reconciler.drivers.vmm.serial import LineTakenError
from reconciler.lib.paths import VmPaths

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from reconciler.drivers.vmm import serial
from reconciler.lib.paths import VmPaths
with serial.attached(VmPaths(Path(sys.argv[2]), Path(sys.argv[2])), "demo/dev"):
    print("attached", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).parents[2]


class Line:
    """QEMU's two sockets: one client of the serial line, and QMP that says whether there is one."""

    def __init__(self, folder: Path) -> None:
        self.paths = VmPaths(folder, folder)
        self.filename = "disconnected:unix:/run/serial.sock,server=on"
        self.serial, self.qmp = (self._listen(path) for path in (self.paths.serial, self.paths.qmp))
        threading.Thread(target=self._answer, daemon=True).start()

    def _listen(self, path: Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        made.listen()
        return made

    def _answer(self) -> None:
        while True:
            try:
                client, _ = self.qmp.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                stream.write(b'{"QMP": {}}\n')
                stream.flush()
                for line in stream:
                    asked = json.loads(line)
                    found = [{"label": "agent", "filename": "pipe"}, {"label": "serial0", "filename": self.filename}]
                    answer = {"return": found if asked["execute"] == "query-chardev" else {}, "id": asked["id"]}
                    stream.write(json.dumps(answer).encode() + b"\n")
                    stream.flush()

    def another(self) -> subprocess.Popen[bytes]:
        """A process that is attached."""
        words = [sys.executable, "-c", HOLD, str(ROOT), str(self.paths.run)]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline() == b"attached\n"
        return child

    def close(self) -> None:
        self.serial.close()
        self.qmp.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def test_one_is_attached_and_may_be_again(line: Line) -> None:
    for _ in range(2):
        with serial.attached(line.paths, "demo/dev") as connection:
            guest, _ = line.serial.accept()
            with guest:
                guest.sendall(b"login: ")
                assert connection.recv(7) == b"login: "


def test_the_second_is_told_who_is_the_first(line: Line) -> None:
    with line.another() as first:
        with (
            pytest.raises(LineTakenError, match=f"demo/dev, in process {first.pid}"),
            serial.attached(line.paths, "demo/dev"),
        ):
            pass
        first.kill()
        first.wait()
        with serial.attached(line.paths, "demo/dev"):
            pass


def test_a_program_that_knows_no_lock_is_told_from_banger(line: Line) -> None:
    line.filename = "unix:/run/serial.sock,server=on"
    with pytest.raises(LineTakenError, match="not banger") as caught, serial.attached(line.paths, "demo/dev"):
        pass
    assert caught.value.pid is None


@pytest.mark.parametrize("stopped", [False, True])
def test_who_saves_the_disks_takes_it_over(line: Line, stopped: bool) -> None:
    with line.another() as first:
        if stopped:
            os.kill(first.pid, signal.SIGSTOP)
        with serial.take_over(line.paths, 30.0) as connection:
            assert first.wait(30) == -signal.SIGTERM
            heard = line.serial.accept()[0], line.serial.accept()[0]  # the first one's, and this one's
            connection.sendall(b"s")
            assert heard[1].recv(1) == b"s"
            for end in heard:
                end.close()


def test_one_who_stays_is_waited_for_no_longer_than_told(line: Line) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HOLD
    words = [sys.executable, "-c", stubborn, str(ROOT), str(line.paths.run)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout and first.stdout.readline() == b"attached\n"
        with serial.take_over(line.paths, 0.3):
            assert first.poll() is None
        first.kill()


def test_without_anybody_it_is_had_at_once(line: Line) -> None:
    with serial.take_over(line.paths, 30.0) as connection:
        guest, _ = line.serial.accept()
        guest.close()
        assert connection.recv(1) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_root_leaves_no_lock_that_the_owner_cannot_take(line: Line) -> None:
    os.chown(line.paths.run, 65534, 65534)
    with serial.attached(line.paths, "demo/dev"):
        found = line.paths.serial_lock.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65534, 0o600)
