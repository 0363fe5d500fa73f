"""Whatever file an apply is given: a reason with its place, exit code 2, little memory, and nothing done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spec.test_hostile_files import FILES, MIB

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "cases" / "spec" / "bad").glob("*.yaml"))
PLACE = re.compile(r"^\S*bad:\d+:\d+: ", re.MULTILINE)
# The peak of the process itself, told by the kernel when everything is over.
RUN = """
import atexit, sys
atexit.register(lambda: print("PEAK", open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
from reconciler.cli.main import main
main()
"""


def content(name: str) -> bytes:
    return FILES[name] if name in FILES else (CASES[0].parent / name).read_bytes()


def refused(folder: Path, path: Path) -> str:
    """What `banger apply` says of a file; nothing else came of it."""
    home = folder / "home"
    done = subprocess.run(
        [sys.executable, "-c", RUN, "apply", "-f", str(path)],
        env={**os.environ, "BANGER_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()
    assert int(done.stdout.split("PEAK ")[1]) * 1024 < 100 * MIB
    return done.stderr


@pytest.mark.parametrize("name", [*FILES, *(case.name for case in CASES[::2])])
def test_a_bad_file_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content(name))
    assert PLACE.search(refused(tmp_path, path)), name


def test_what_is_no_file_to_read(tmp_path: Path) -> None:
    fifo, big, missing = tmp_path / "fifo", tmp_path / "big", tmp_path / "missing"
    os.mkfifo(fifo)
    big.write_bytes(b"#" * 10_000_000)
    for path, word in ((fifo, "named pipe"), (big, "1 MiB"), (missing, "no such file"), (tmp_path, "directory")):
        said = refused(tmp_path, path)
        assert str(path) in said
        assert word in said.lower() or word in said, said
