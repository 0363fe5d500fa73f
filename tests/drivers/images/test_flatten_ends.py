"""Killed in the middle, on a full disk, interrupted, by a user: nothing runs on, and nothing stays."""

from __future__ import annotations

import gzip
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zlib_ng
import zstandard

from reconciler.drivers.images.flatten import Layer, flatten
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.progress import Silent
from reconciler.lib.run import cancel_all, reset_cancel, which
from reconciler.lib.units import MIB
from tests.drivers.images import archives, trees

pytestmark = pytest.mark.skipif(which("bwrap") is None, reason="bubblewrap is not installed")
ROOT = Path(__file__).parents[3]

# What a puller does: once(), and in it flatten(). It says when the tar has begun to flow.
PROGRAM = """
import sys
from pathlib import Path
from reconciler.drivers.images.flatten import Layer, flatten
from reconciler.lib.once import once
from reconciler.lib.progress import Silent

class Told:
    def update(self, fraction, message):
        if fraction and fraction > float(sys.argv[5]):
            print("now", flush=True)

layer = Layer(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[1]).stat().st_size, None)
once(Path(sys.argv[4]), Silent(), lambda folder, scratch: flatten([layer], folder / "rootfs.squashfs", scratch, Told()))
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A layer that takes a while: 400 files with 1 MiB each, of which little comes over the wire."""
    path = tmp_path_factory.mktemp("large") / "layer"
    members = [
        {"name": f"d/{number}", "content": {"repeat": f"{number:08}", "times": MIB // 8}} for number in range(400)
    ]
    data = b"".join(gzip.compress(archives.entry(**member), 1) for member in members) + gzip.compress(archives.END)
    path.write_bytes(data)
    return path, archives.OCI + "+gzip", archives.digest(data)


def inside(marker: Path) -> list[str]:
    """Processes that have something to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if os.fsencode(marker) in line and int(entry.name) != os.getpid():
            found.append(line.replace(b"\0", b" ").decode())
    return found


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("fraction", [0.1, 0.6, 0.9])
def test_killed_in_the_middle(large: tuple[Path, str, str], tmp_path: Path, fraction: float) -> None:
    target = tmp_path / "images" / "one"
    argv = [sys.executable, "-c", PROGRAM, *map(str, large), str(target), str(fraction)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert child.stdout is not None and child.stdout.readline() == b"now\n"
    child.kill()
    child.wait()
    until(lambda: not inside(tmp_path), "the sandboxes outlive their parent")
    # What is left lies in a folder that nobody holds any more, and that is what the next pass removes.
    assert not target.exists()
    assert {path.name for path in target.parent.iterdir()} <= {STAGING, ".locks"}
    assert len(corpses(target.parent)) == 1
    # And the way forward is not barred.
    again = subprocess.run(argv, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert again.stdout.endswith(b"done\n")
    assert len(trees.of_squashfs(target / "rootfs.squashfs").nodes) == 402


def test_interrupted(large: tuple[Path, str, str], tmp_path: Path) -> None:
    class Interrupting:
        def update(self, fraction: float | None, message: str) -> None:
            if fraction and fraction > 0.6:
                cancel_all()

    try:
        with pytest.raises(CancelledError):
            flatten([layer(large)], tmp_path / "x.squashfs", scratch(tmp_path), Interrupting())
    finally:
        reset_cancel()
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    assert not inside(tmp_path)


def layer(large: tuple[Path, str, str]) -> Layer:
    path, kind, digest = large
    return Layer(path, kind, digest, path.stat().st_size, None)


def scratch(folder: Path) -> Path:
    made = folder / "scratch"
    made.mkdir()
    return made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(large: tuple[Path, str, str], small_disk: Path) -> None:
    with pytest.raises(BangerError, match="no space left on the disk of the cache"):
        flatten([layer(large)], small_disk / "x.squashfs", scratch(small_disk), Silent())
    assert [path.name for path in small_disk.iterdir()] == ["scratch"]
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize > 19 * MIB


def test_a_missing_program(large: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.lib.run.which", lambda program: None if program == "bwrap" else f"/bin/{program}")
    with pytest.raises(BangerError, match="bwrap is not installed") as told:
        flatten([layer(large)], tmp_path / "x.squashfs", scratch(tmp_path), Silent())
    assert told.value.hint == "apt-get install bubblewrap"


def test_a_folder_that_cannot_be_written(large: tuple[Path, str, str], tmp_path: Path) -> None:
    with pytest.raises(BangerError):
        flatten([layer(large)], tmp_path / "absent" / "x.squashfs", scratch(tmp_path), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_a_user_gets_the_same_bytes_as_root(tmp_path: Path) -> None:
    """Owners, devices and attributes that no user could make."""
    if os.geteuid() != 0:
        pytest.skip("only root can compare the two")
    members = [
        {"name": "d/n", "type": "char", "major": "0000001", "minor": "0000003", "uid": "0000017"},
        {"name": "d/f", "content": "x", "mode": "0006755", "pax": {"SCHILY.xattr.security.capability": "\x01\0\0\2"}},
        {"name": "d/g", "pax": {"uid": 4000000000}},
    ]
    data = archives.archive(members)
    made = []
    nobody = pwd.getpwnam("nobody")
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    for who in ({}, user):
        with tempfile.TemporaryDirectory() as name:  # the closed home of a user, which root has to get by in, too
            folder = Path(name)
            for package in (
                ROOT / "reconciler",
                *(Path(module.__file__ or "").parent for module in (zlib_ng, zstandard)),
            ):
                shutil.copytree(
                    package, folder / "packages" / package.name, ignore=shutil.ignore_patterns("__pycache__")
                )
            (folder / "layer").write_bytes(data)
            subprocess.run(["chown", "-R", "nobody", str(folder)], check=True)
            words = (folder / "layer", archives.OCI, archives.digest(data), folder / "out/x", 2)
            argv = ["/usr/bin/python3", "-c", PROGRAM, *map(str, words)]
            environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder / "packages")}
            done = subprocess.run(argv, capture_output=True, cwd="/", env=environment, check=False, **who)  # type: ignore[call-overload]
            assert done.stdout == b"done\n", done.stderr
            made.append((folder / "out/x/rootfs.squashfs").read_bytes())
    assert made[0] == made[1]
