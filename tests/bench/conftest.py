"""Benchmarks compare with the raw tools in the same run, since machines are noisy; they end with one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.host.conftest import artifact_cache, home, subnet

__all__ = ["artifact_cache", "home", "subnet"]


@dataclass(frozen=True)
class Measurement:
    """One promise: what was measured, against what, and the most that is allowed."""

    promise: str
    ours: str
    theirs: str
    value: float
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        return self.value <= self.limit


Record = Callable[[Measurement], None]


@pytest.fixture(scope="session")
def _table() -> Iterator[list[Measurement]]:
    rows: list[Measurement] = []
    yield rows
    head = ("promise", "banger", "compared with", "result", "at most", "")
    lines = [
        (m.promise, m.ours, m.theirs, f"{m.value:.2f}{m.unit}", f"{m.limit:g}{m.unit}", "kept" if m.kept else "BROKEN")
        for m in rows
    ]
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    print()
    for line in (head, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@pytest.fixture
def record(_table: list[Measurement]) -> Record:
    """Adds a row to the table, and fails the test if the promise is broken."""

    def add(measurement: Measurement) -> None:
        _table.append(measurement)
        assert measurement.kept, measurement

    return add
