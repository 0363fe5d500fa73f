"""A short run of the fuzzer with a fixed seed; the long one is by hand (tests/fuzz/layers)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.lib.run import which

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not (which("bwrap") and which("bsdtar")), reason="bubblewrap or libarchive-tools is not installed")
def test_two_hundred_archives() -> None:
    argv = [sys.executable, "-m", "tests.fuzz.layers", "--archives", "200", "--seed", "7"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It gets through the checks often enough, and to many of them.
    assert re.search(r"\d{2} accepted, and gnutar agrees", done.stdout), done.stdout
    assert len(re.findall(r"refused: ", done.stdout)) > 20
