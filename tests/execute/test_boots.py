"""Only so many guests boot at once, and none waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.drivers.vmm.probe import Vmm
from reconciler.execute.boots import BootGate
from reconciler.lib import cancel
from reconciler.lib.clock import Clock, SystemClock
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.progress import Silent
from tests.fakes.clock import FakeClock


def vmm(number: int) -> Vmm:
    return Vmm(pid=number, start_time=1, vm_id=f"{number:x}", install="i")


class Guests:
    """Guests that boot until they are told to be quiet."""

    def __init__(self) -> None:
        self.quiet: dict[int, threading.Event] = {}
        self.booting: set[int] = set()
        self.most = 0
        self.lock = threading.Lock()

    def boot(self, number: int) -> Vmm:
        with self.lock:
            self.quiet[number] = threading.Event()
            self.booting.add(number)
            self.most = max(self.most, len(self.booting))
        return vmm(number)

    def settle(self, booting: Vmm, clock: Clock, limit: float) -> None:
        self.quiet[booting.pid].wait(30)
        with self.lock:
            self.booting.discard(booting.pid)


def test_the_next_one_starts_when_one_before_it_is_quiet() -> None:
    guests = Guests()
    gate = BootGate(FakeClock(), places=2, settle=guests.settle)
    started = [threading.Event() for _ in range(5)]

    def start(number: int) -> None:
        with gate.boot(Silent()) as keep:
            keep(guests.boot(number))
        started[number].set()

    with ThreadPoolExecutor(1) as pool:
        for number in range(5):
            pool.submit(start, number)
        for number in range(5):
            assert started[number].wait(10)
            if number >= 1:
                assert len(guests.booting) == 2 or number == 4
                # The one that has booted the longest comes to rest, and lets the next one in.
                guests.quiet[number - 1].set()
        guests.quiet[4].set()
    assert guests.most == 2


def test_a_start_that_failed_gives_its_place_back() -> None:
    gate = BootGate(FakeClock(), places=1, settle=lambda vmm, clock, limit: None)
    for _ in range(3):
        with pytest.raises(BangerError), gate.boot(Silent()):
            raise BangerError("no such disk")
    with gate.boot(Silent()) as keep:
        keep(vmm(1))


def test_whoever_waits_sees_a_cancellation() -> None:
    never = threading.Event()
    gate = BootGate(FakeClock(), places=1, settle=lambda vmm, clock, limit: never.wait(30) and None)
    with gate.boot(Silent()) as keep:
        keep(vmm(1))
    cancel.cancel()
    try:
        with pytest.raises(CancelledError), gate.boot(Silent()):
            raise AssertionError("there was no place")
    finally:
        cancel.reset()
        never.set()


def test_processes_share_their_places_by_a_folder(tmp_path: Path) -> None:
    guests = Guests()
    gates = [BootGate(SystemClock(), places=1, settle=guests.settle, shared=tmp_path / "boots") for _ in range(2)]
    started = [threading.Event() for _ in gates]

    def start(number: int) -> None:
        with gates[number].boot(Silent()) as keep:
            keep(guests.boot(number))
        started[number].set()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(start, 0)
        assert started[0].wait(10)
        pool.submit(start, 1)
        assert not started[1].wait(0.5)
        guests.quiet[0].set()
        assert started[1].wait(10)
        guests.quiet[1].set()
    assert guests.most == 1


def test_a_folder_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gate = BootGate(FakeClock(), places=1, settle=lambda vmm, clock, limit: None, shared=tmp_path / "file" / "boots")
    with gate.boot(Silent()) as keep:
        keep(vmm(1))
