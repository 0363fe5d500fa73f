"""A guest counts as booted when it asks for little of the processors, however crowded they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.vmm.probe import Vmm
from reconciler.drivers.vmm.settle import demand, wait_until_settled
from tests.fakes.clock import FakeClock

VMM = Vmm(pid=7, start_time=99, vm_id="a", install="i")


def shares(*values: float) -> Iterator[float | None]:
    """Running totals for a guest that asks for these shares, half a second each, and is then gone."""
    total = 0.0
    yield total
    for value in values:
        total += value / 2
        yield total
    yield None


@pytest.mark.parametrize(
    ("asked", "samples"),
    [
        pytest.param([1.5, 1.2, 0.1, 0.1, 0.1, 9], 5, id="boots, then rests"),
        pytest.param([0.1, 0.1, 1.0, 0.0, 0.0, 0.0, 9], 6, id="a pause is no rest"),
        pytest.param([2, 2, 2, 2], 5, id="gone"),
        pytest.param([2] * 500, 20, id="never quiet: ten seconds are the limit"),
    ],
)
def test_settling(asked: list[float], samples: int) -> None:
    clock, totals, count = FakeClock(), shares(*asked), -1

    def look(vmm: Vmm) -> float | None:
        nonlocal count
        count += 1
        return next(totals)

    wait_until_settled(VMM, clock, 10.0, look)
    assert count == samples


def proc(folder: Path, schedstats: list[str], start: int = 99) -> Path:
    for number, text in enumerate(schedstats):
        task = folder / "7" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "schedstat").write_text(text)
    (folder / "7" / "stat").write_text(f"7 (qemu) S 1 {'0 ' * 17}{start} 0\n")
    return folder


def test_demand_is_running_and_waiting_of_all_threads(tmp_path: Path) -> None:
    assert demand(VMM, proc=proc(tmp_path, ["1000000000 500000000 3\n", "250000000 0 1\n"])) == 1.75


def test_a_pid_with_a_new_owner_is_a_vmm_that_is_gone(tmp_path: Path) -> None:
    assert demand(VMM, proc=proc(tmp_path, ["1 1 1\n"], start=100)) is None
    assert demand(VMM, proc=tmp_path / "nothing") is None
