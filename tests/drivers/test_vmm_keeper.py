"""The keeper of consoles, with processes that show themselves as VMMs do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm import keeper, probe
from reconciler.lib import logfile

INSTALL = f"keeper{os.getpid()}"
PATIENCE = 30.0


def until(condition: Callable[[], object]) -> None:
    """What another process does can only be looked for."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def keepers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if INSTALL.encode() in words and any(b"vmm.keeper" in word for word in words):
                found.append(int(entry.name))
    return found


class Vms:
    """Processes with the name, the stamp and the log of a VMM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "run" / "consoles.lock"
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str = "vm1") -> Path:
        log = self.folder / f"a,b {name}" / "console.log"
        log.parent.mkdir()
        log.write_bytes(b"-- start --\n")
        escaped = str(log).replace(",", ",,")
        words = ["qemu-system-x86_64", "-c", "import time; time.sleep(3600)", "-name", probe.stamp(INSTALL, name)]
        words += ["-chardev", f"socket,id=serial0,path=/x,logfile={escaped},logappend=on", "-chardev", "pipe,id=agent"]
        child = subprocess.Popen(words, executable=sys.executable)
        self.running.append(child)
        until(lambda: name in probe.find(INSTALL))
        return log

    def end(self) -> None:
        for child in self.running:
            child.kill()
            child.wait()
        self.running.clear()


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[Vms]:
    made = Vms(tmp_path)
    yield made
    made.end()
    until(lambda: not keepers())


def test_a_log_is_bounded_while_its_vm_runs_and_nobody_else_does(vms: Vms) -> None:
    log = vms.start()
    keeper.ensure(INSTALL, vms.lock)
    until(lambda: logfile.read_times(log))
    with log.open("ab") as writer:
        writer.write(b"noise\n" * (20 << 20 >> 2))
    until(lambda: log.stat().st_blocks * 512 <= logfile.MOST)
    assert log.stat().st_size > 20 << 20
    until(lambda: (logfile.since(log, time.time()) or 0) > 20 << 20)


def test_there_is_one_and_it_goes_with_the_last_vm(vms: Vms) -> None:
    vms.start()
    for _ in range(3):
        keeper.ensure(INSTALL, vms.lock)
    until(lambda: len(keepers()) == 1)
    vms.end()
    until(lambda: not keepers())


def test_without_a_vm_there_is_none(vms: Vms) -> None:
    keeper.ensure(INSTALL, vms.lock)
    assert keepers() == []


def test_the_next_start_brings_back_one_that_was_killed(vms: Vms) -> None:
    vms.start()
    keeper.ensure(INSTALL, vms.lock)
    until(lambda: len(keepers()) == 1)
    os.kill(keepers()[0], signal.SIGKILL)
    until(lambda: not keepers())
    keeper.ensure(INSTALL, vms.lock)
    until(lambda: len(keepers()) == 1)


def test_a_keeper_that_cannot_be_had_fails_no_start(vms: Vms, monkeypatch: pytest.MonkeyPatch) -> None:
    vms.start()
    monkeypatch.setattr(keeper.sys, "executable", "/nonexistent/python")
    keeper.ensure(INSTALL, vms.lock)
    vms.lock.parent.joinpath("file").write_text("")
    keeper.ensure(INSTALL, vms.lock.parent / "file" / "lock")
    assert keepers() == []


def test_it_keeps_nothing_of_the_surroundings(vms: Vms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t")
    vms.start()
    keeper.ensure(INSTALL, vms.lock)
    until(lambda: len(keepers()) == 1)
    (pid,) = keepers()
    assert b"s3cr3t" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) != os.getsid(0)
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
