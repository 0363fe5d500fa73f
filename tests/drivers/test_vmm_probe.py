"""Recognising VMMs, against a made-up /proc and against real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError


class FakeProc:
    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        pid: int,
        *words: str,
        parent: int = 1,
        state: str = "S",
        start: int = 1000,
        comm: str = "qemu",
        stdout: str = "/dev/null",
    ) -> None:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "fd" / "1").symlink_to(stdout)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        zeros = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} ({comm}) {state} {parent} {zeros} {start} 0 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    (tmp_path / "self").mkdir()
    (tmp_path / "uptime").touch()
    return FakeProc(tmp_path)


def qemu(vm_id: str, install: str = "inst") -> tuple[str, ...]:
    return "/usr/bin/qemu-system-x86_64", "-name", f"guest=banger.{install}.{vm_id}", "-M", "microvm"


def test_finds_exactly_ours(proc: FakeProc) -> None:
    proc.add(10, *qemu("a"), start=77)
    proc.add(11, *qemu("b", install="other"))
    proc.add(12, *qemu("c", install="inst2"))
    proc.add(13, "vim", "-name", "guest=banger.inst.d")
    proc.add(14, "setpriv", "--pdeathsig", "KILL", "--", *qemu("e"))
    proc.add(15, "qemu-system-x86_64", "-append", "guest=banger.inst.f")
    proc.add(16, "qemu-system-x86_64", "-name", "guest=banger.inst.")
    proc.add(17)
    assert probe.find("inst", proc=proc.root) == {"a": Vmm(pid=10, start_time=77, vm_id="a", install="inst")}


@pytest.mark.parametrize("state", ["Z", "X"])
def test_the_dead_do_not_run(proc: FakeProc, state: str) -> None:
    proc.add(10, *qemu("a"), state=state)
    assert probe.find("inst", proc=proc.root) == {}
    assert not probe.alive(Vmm(pid=10, start_time=1000, vm_id="a", install="inst"), proc=proc.root)


def test_a_program_name_may_hold_anything(proc: FakeProc) -> None:
    proc.add(10, *qemu("a"), comm=") Z 1 (x", start=5)
    assert probe.find("inst", proc=proc.root)["a"].start_time == 5


@pytest.mark.parametrize(("launcher", "daemon"), [(10, 11), (11, 10)])
def test_of_a_daemonizing_pair_the_child_counts(proc: FakeProc, launcher: int, daemon: int) -> None:
    proc.add(launcher, *qemu("a"), parent=1)
    proc.add(daemon, *qemu("a"), parent=launcher)
    assert probe.find("inst", proc=proc.root)["a"].pid == daemon


def test_one_that_is_still_being_started_has_not_settled(proc: FakeProc) -> None:
    proc.add(10, *qemu("a"))
    proc.add(11, *qemu("b"), stdout="pipe:[4711]")
    assert set(probe.find("inst", proc=proc.root)) == {"a", "b"}
    assert set(probe.find("inst", settled=True, proc=proc.root)) == {"a"}


def test_other_users_are_skipped(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    proc.add(10, *qemu("a"))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert probe.find("inst", proc=proc.root) == {}


def test_a_process_that_ends_while_it_is_read_is_skipped(proc: FakeProc) -> None:
    proc.add(10, *qemu("a"))
    proc.add(11, *qemu("b"))
    (proc.root / "10" / "stat").unlink()
    assert set(probe.find("inst", proc=proc.root)) == {"b"}


def test_no_proc_is_an_error_and_not_an_empty_host(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="cannot list the processes"):
        probe.find("inst", proc=tmp_path / "missing")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "600"])
    yield child
    child.kill()
    child.wait()


def vmm_of(pid: int) -> Vmm:
    start = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return Vmm(pid=pid, start_time=start, vm_id="v", install="i")


def test_a_pidfd_follows_the_process_to_its_end(sleeper: subprocess.Popen[bytes]) -> None:
    vmm = vmm_of(sleeper.pid)
    assert probe.alive(vmm)
    fd = probe.pidfd(vmm)
    assert fd is not None
    assert not probe.wait(fd, 0)
    probe.send(fd, signal.SIGKILL)
    assert probe.wait(fd, 10)
    assert not probe.alive(vmm)  # a zombie until it is waited for
    assert probe.pidfd(vmm) is None
    sleeper.wait()
    probe.send(fd, signal.SIGKILL)
    os.close(fd)
    assert probe.pidfd(vmm) is None


def test_a_reused_pid_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    vmm = vmm_of(sleeper.pid)
    stale = Vmm(pid=vmm.pid, start_time=vmm.start_time - 1, vm_id="v", install="i")
    assert not probe.alive(stale)
    assert probe.pidfd(stale) is None
    assert sleeper.poll() is None
