"""A child whose banger was killed while it was being started never becomes the program that it was to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.lib.run import which

# Killed as soon as the child is there: `setpriv` of this test lets that happen before anything else.
KILLED_WHILE_STARTING = """
import os, signal
from reconciler.lib import run
os.environ["STARTER"] = str(os.getpid())
run.begin(["touch", os.environ["RAN"]], stdout=1)
os.kill(os.getpid(), signal.SIGKILL)
"""
SLOW = """#!/bin/sh
while [ "$STARTER" = "$(cut -d' ' -f4 /proc/$$/stat)" ]; do :; done
exec {setpriv} "$@"
"""


@pytest.mark.skipif(which("setpriv") is None, reason="setpriv is not installed")
def test_an_orphan_ends_before_it_does_anything(tmp_path: Path) -> None:
    slow = tmp_path / "setpriv"
    slow.write_text(SLOW.format(setpriv=which("setpriv")))
    slow.chmod(0o755)
    ran = tmp_path / "ran"
    env = {**os.environ, "RAN": str(ran), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    # The orphan has the pipe too: this returns when it has ended.
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_STARTING], stdout=subprocess.PIPE, timeout=60, env=env, check=False
    )
    assert done.returncode == -9
    assert not ran.exists()
