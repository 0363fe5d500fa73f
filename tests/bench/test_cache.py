"""100,000 blobs: planned in under a second, and pruned in about the time that `rm -rf` takes, in the same run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions
from reconciler.daemon import retention
from reconciler.daemon.engine import Engine
from reconciler.lib.clock import SystemClock
from reconciler.lib.paths import Paths
from reconciler.model.desired import DesiredState
from reconciler.model.plan import Plan
from reconciler.model.retention import DAY, CachePolicy, EntryKind, Rule, Safety
from reconciler.plan import plan
from tests.bench.conftest import Measurement, Record
from tests.fakes.host import Recorder

pytestmark = pytest.mark.bench

BLOBS = 100_000
POLICY = CachePolicy(
    rules=(Rule(kind=EntryKind.BLOB, unused_for=30 * DAY),), safety=Safety(min_age=0.0, max_delete=1.0)
)
WANTED = DesiredState(environment="demo", cache=POLICY)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fill(folder: Path) -> None:
    """Blobs of one block each, last used a year ago."""
    folder.mkdir(parents=True, exist_ok=True)
    ago = time.time() - 365 * DAY
    for number in range(BLOBS):
        path = f"{folder}/{number:064x}"
        with open(path, "wb") as file:
            file.write(b"x")
        os.utime(path, (ago, ago))


def test_a_hundred_thousand_blobs_are_planned_and_pruned(tmp_path: Path, record: Record) -> None:
    paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
    raw = tmp_path / "raw"
    with closing(Engine(paths, SystemClock())) as engine:
        with engine.writing(lambda message: None):
            pass
        fill(paths.blobs)
        found: list[Plan] = []
        planned = min(timed(lambda: found.append(plan(WANTED, engine.observe("demo", WANTED)))) for _ in range(3))
        (step,) = found[-1].steps
        assert len(step.action.entries) == BLOBS  # type: ignore[union-attr]  # the one eviction
        record(Measurement("100,000 blobs planned", f"{planned:.2f} s", "1 s", planned, 1.0, " s"))
        ours, theirs = [], []
        for round_ in range(2):
            # Each after the other's fill, so that both find their folder as warm.
            fill(raw)
            if round_:
                fill(paths.blobs)
            theirs.append(timed(lambda: subprocess.run(["rm", "-rf", raw], check=True)))
            result = None

            def prune() -> None:
                nonlocal result
                result = retention.prune(engine, WANTED, ApplyOptions(), Recorder(), lambda plan: True)

            ours.append(timed(prune))
            assert result is not None and not result.failed and not any(paths.blobs.iterdir())
        record(
            Measurement(
                "100,000 blobs pruned",
                f"{min(ours):.2f} s",
                f"rm -rf: {min(theirs):.2f} s",
                min(ours) / min(theirs),
                1.2,
                "x",
            )
        )
