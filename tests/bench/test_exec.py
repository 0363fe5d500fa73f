"""`banger exec` against ssh over a connection that stands: how long a command takes, and how fast its streams are."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.bench.conftest import Measurement, Record
from tests.host.home import Home

pytestmark = [pytest.mark.bench, pytest.mark.host]

MEGABYTES = int(os.environ.get("BANGER_MEGABYTES", "0")) or 48
"""Of one transfer. A thousand take four minutes each way where guests are emulated."""
ROUNDS = 15


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def test_exec_is_as_quick_as_a_shared_connection_of_ssh(home: Home, record: Record, tmp_path: Path) -> None:
    """By turns, into the same guest, so that what else the machine does meets both."""
    home.write({"dev": {"image": "base", "cpus": 2, "ready": {"timeout": "300s"}}})
    home.run("apply")
    home.run("ssh-config", "--install", "--ssh-config", str(tmp_path / "config"))
    ssh = ["ssh", "-F", str(tmp_path / "config"), f"dev.{home.environment}.vm"]
    ours = home.argv("exec", "dev", "--")

    def run(argv: Sequence[str]) -> Callable[[], object]:
        return lambda: subprocess.run(argv, env=home.env, cwd=home.root, stdin=subprocess.DEVNULL, check=True)

    for argv in ([*ours, "true"], [*ssh, "true"]):
        run(argv)()  # makes its connection
    mine, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(timed(run([*ssh, "true"])))
        mine.append(timed(run([*ours, "true"])))
    a, b = statistics.median(mine), statistics.median(theirs)
    record(Measurement("exec, warm", f"{a * 1000:.0f} ms", f"ssh, shared {b * 1000:.0f} ms", a / b, 1.5, "×"))

    sent = tmp_path / "sent"
    with sent.open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(os.urandom(1 << 20))
    digest = _digest(sent)

    def there_and_back(argv: Sequence[str]) -> None:
        received = tmp_path / "received"
        with sent.open("rb") as source, received.open("wb") as sink:
            subprocess.run([*argv, "cat"], env=home.env, cwd=home.root, stdin=source, stdout=sink, check=True)
        assert _digest(received) == digest

    b, a = timed(lambda: there_and_back(ssh)), timed(lambda: there_and_back(ours))
    what = f"{MEGABYTES} MiB through exec"
    record(Measurement(what, f"{MEGABYTES / a:.1f} MiB/s", f"ssh {MEGABYTES / b:.1f} MiB/s", a / b, 1.25, "×"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
