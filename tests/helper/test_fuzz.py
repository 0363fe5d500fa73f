"""A short run of the fuzzer with a fixed seed; the long one is by hand (tests/fuzz/helper)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_twenty_thousand_frames() -> None:
    argv = [sys.executable, "-m", "tests.fuzz.helper", "--frames", "20000", "--seed", "7"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It reaches what is behind the first check, and what is behind the last.
    assert re.search(r"'bad-address': \d{2}", done.stdout), done.stdout
    assert re.search(r"'done': \d{3}", done.stdout), done.stdout
