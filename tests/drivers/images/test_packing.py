"""What packs a tar reads all of it: whoever writes it is not to meet a broken pipe."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from reconciler.drivers.images.squashfs import packing

pytestmark = pytest.mark.skipif(not shutil.which("sqfstar"), reason="needs squashfs-tools")


def name_of(process: subprocess.Popen[bytes]) -> str | None:
    return Path(f"/proc/{process.pid}/comm").read_text().strip() if process.poll() is None else None


def test_the_end_of_a_tar_may_come_when_the_squashfs_is_written(tmp_path: Path) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    whole = tar.getvalue()
    first_zeros = 2 * tarfile.BLOCKSIZE  # after the one header
    made = tmp_path / "made"
    process = subprocess.Popen(packing(made), stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(whole[:first_zeros])
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while name_of(process) not in ("cat", None) and time.monotonic() < deadline:
        pass
    process.stdin.write(whole[first_zeros:])
    process.stdin.close()
    assert process.wait(30) == 0
    listed = subprocess.run(["unsquashfs", "-l", "-d", "", made], capture_output=True, text=True, check=True).stdout
    assert "/empty" in listed.split()


def test_a_tar_that_ends_early_is_a_failure(tmp_path: Path) -> None:
    done = subprocess.run(packing(tmp_path / "made"), input=b"\0" * 100, capture_output=True, check=False)
    assert (done.returncode, b"truncated" in done.stderr) == (1, True)
