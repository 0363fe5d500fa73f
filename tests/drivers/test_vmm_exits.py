"""Learning of the end of processes: at once, once, and of the right ones."""

from __future__ import annotations

import os
import queue
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.exits import ExitWatch
from reconciler.drivers.vmm.probe import Vmm
from reconciler.lib.errors import BangerError, ErrorClass

PATIENCE = 60.0  # seconds; only a failing test waits for it


class Ends:
    """A watch, what it reported, and processes to end."""

    def __init__(self) -> None:
        self.keys: queue.Queue[str] = queue.Queue()
        self.watch = ExitWatch(self.keys.put)
        self.children: list[subprocess.Popen[bytes]] = []

    def begin(self) -> Vmm:
        child = subprocess.Popen(["sleep", "600"])
        self.children.append(child)
        start = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        return Vmm(pid=child.pid, start_time=start, vm_id="v", install="i")

    def end(self, vmm: Vmm, *, reap: bool = False) -> None:
        child = next(child for child in self.children if child.pid == vmm.pid)
        child.kill()
        if reap:
            child.wait()

    def next(self) -> str:
        return self.keys.get(timeout=PATIENCE)

    def rest(self) -> list[str]:
        """What was reported and not waited for, once everything up to now has been."""
        self.watch.watch("the last", Vmm(pid=2**22 + 1, start_time=1, vm_id="v", install="i"))
        found = []
        while (key := self.next()) != "the last":
            found.append(key)
        return found


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    ends.watch.start()
    yield ends
    ends.watch.stop()
    for child in ends.children:
        child.kill()
        child.wait()


def test_an_end_is_reported_once(ends: Ends) -> None:
    stays, goes = ends.begin(), ends.begin()
    ends.watch.watch("stays", stays)
    ends.watch.watch("goes", goes)
    ends.end(goes)
    assert ends.next() == "goes"
    ends.watch.watch("goes", goes)
    assert ends.rest() == []


def test_watching_again_changes_nothing(ends: Ends) -> None:
    vmm = ends.begin()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        ends.watch.watch("web", vmm)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    ends.end(vmm)
    assert ends.next() == "web"
    assert ends.rest() == []


@pytest.mark.parametrize("reap", [True, False])
def test_what_had_ended_before_is_reported_at_once(ends: Ends, reap: bool) -> None:
    vmm = ends.begin()
    ends.end(vmm, reap=reap)
    if not reap:
        os.waitid(os.P_PID, vmm.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(3):
        ends.watch.watch("web", vmm)
    assert ends.next() == "web"
    assert ends.rest() == []


def test_another_process_with_that_pid_is_not_it(ends: Ends) -> None:
    vmm = ends.begin()
    ends.watch.watch("web", Vmm(pid=vmm.pid, start_time=vmm.start_time - 1, vm_id="v", install="i"))
    assert ends.next() == "web"


def test_a_new_vmm_takes_the_place_of_the_old_one(ends: Ends) -> None:
    old, new = ends.begin(), ends.begin()
    ends.watch.watch("web", old)
    ends.watch.watch("web", new)
    ends.end(old, reap=True)
    assert ends.rest() == []
    ends.end(new)
    assert ends.next() == "web"


def test_what_is_forgotten_is_not_reported(ends: Ends) -> None:
    vmm, ended = ends.begin(), ends.begin()
    ends.watch.watch("web", vmm)
    ends.watch.forget("web")
    ends.watch.forget("web")
    ends.end(vmm, reap=True)
    ends.end(ended, reap=True)
    assert ends.rest() == []
    ends.watch.watch("web", ended)
    assert ends.next() == "web"


def test_an_end_that_is_forgotten_in_time_is_not_reported(ends: Ends) -> None:
    vmm = ends.begin()
    ends.end(vmm, reap=True)
    keys: queue.Queue[str] = queue.Queue()
    watch = ExitWatch(keys.put)
    for key in ("web", "db"):
        watch.watch(key, vmm)
    watch.forget("web")
    watch.start()
    assert keys.get(timeout=PATIENCE) == "db"
    watch.stop()
    assert keys.empty()


def test_a_number_that_is_used_again_is_not_mistaken(ends: Ends) -> None:
    """Between the kernel's word and its being heard, the descriptor may have become another one's."""
    old, new = ends.begin(), ends.begin()
    ends.watch.watch("old", old)
    number = ends.watch._watched["old"][1]
    assert number is not None
    ends.watch.forget("old")
    ends.watch.watch("new", new)
    assert ends.watch._watched["new"][1] == number
    assert ends.watch._reap([number]) == []
    ends.end(new)
    assert ends.next() == "new"


def test_a_callback_may_call_back(ends: Ends) -> None:
    first, second = ends.begin(), ends.begin()
    done = threading.Event()

    def changed(key: str) -> None:
        if key == "web":
            watch.forget("web")
            watch.watch("again", second)
        else:
            done.set()

    watch = ExitWatch(changed)
    watch.start()
    watch.watch("web", first)
    ends.end(first)
    ends.end(second)
    assert done.wait(PATIENCE)
    watch.stop()


def test_a_callback_that_raises_ends_nothing(ends: Ends, capsys: pytest.CaptureFixture[str]) -> None:
    told = threading.Semaphore(0)

    def changed(key: str) -> None:
        told.release()
        raise RuntimeError("no room")

    watch = ExitWatch(changed)
    watch.start()
    for key in ("a", "b"):
        vmm = ends.begin()
        watch.watch(key, vmm)
        ends.end(vmm)
        assert told.acquire(timeout=PATIENCE)
    watch.stop()
    assert "no room" in capsys.readouterr().err


def test_no_descriptor_left(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(vmm: Vmm) -> None:
        raise OSError(24, "Too many open files")

    vmm = ends.begin()
    with monkeypatch.context() as patch:
        patch.setattr(probe, "pidfd", full)
        with pytest.raises(BangerError, match="Too many open files") as caught:
            ends.watch.watch("web", vmm)
    assert caught.value.error_class is ErrorClass.RETRYABLE
    ends.watch.watch("web", vmm)
    ends.end(vmm)
    assert ends.next() == "web"


def test_a_thousand_at_a_time(ends: Ends) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"only {hard} open files allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        lasting = ends.begin()
        vmm = ends.begin()
        for number in range(1000):
            ends.watch.watch(f"vm-{number}", vmm)
        ends.watch.watch("lasting", lasting)
        ends.end(vmm)
        assert {ends.next() for _ in range(1000)} == {f"vm-{number}" for number in range(1000)}
        assert ends.rest() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_ends_and_leaves_nothing_open(ends: Ends) -> None:
    vmm = ends.begin()
    before, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    for started in (True, False):
        watch = ExitWatch(lambda key: None)
        if started:
            watch.start()
        watch.watch("web", vmm)
        watch.stop()
        watch.stop()
        watch.watch("late", vmm)
        watch.forget("web")
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
