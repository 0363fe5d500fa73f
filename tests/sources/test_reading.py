"""Reading a file that is being written, is none, or is not ours; and where a path leads."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.sources import reading
from reconciler.sources.reading import MAX_BYTES, Busy, Failed, Whole, read
from reconciler.sources.trail import directories


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "banger.yaml"
    path.write_bytes(b"name: demo\n")
    return path


def test_a_quiet_file_is_whole(path: Path) -> None:
    found = read(path)
    assert isinstance(found, Whole)
    assert (found.data, found.proven) == (b"name: demo\n", True)
    assert found.digest == hashlib.sha256(found.data).hexdigest()
    assert found.signature == reading.signature(path)


@pytest.mark.parametrize("mode", ["ab", "r+b", "wb"])
def test_a_file_that_is_open_for_writing_is_busy(path: Path, mode: str) -> None:
    with path.open(mode):
        assert read(path) == Busy()
    assert isinstance(read(path), Whole)


def test_a_reader_is_no_writer(path: Path) -> None:
    with path.open("rb"):
        assert isinstance(read(path), Whole)


def test_the_lease_is_given_back(path: Path) -> None:
    read(path)
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # EAGAIN, if there were a lease
    os.close(fd)


def test_the_lease_is_given_back_even_if_a_child_has_the_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited: list[int] = []
    real = os.open

    def open_(name: Path, flags: int) -> int:
        fd = real(name, flags)
        inherited.append(os.dup(fd))
        return fd

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_)
        read(path)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    os.close(inherited[0])


def test_a_writer_that_comes_meanwhile_waits_and_kills_nobody(path: Path) -> None:
    """SIGIO, which the kernel sends for a broken lease unless told otherwise, would end the process."""
    code = (
        "import os, sys, threading; from pathlib import Path; from reconciler.sources import reading\n"
        "path = Path(sys.argv[1]); take = reading._lease; writers = []\n"
        "def lease(fd, device):\n"
        "    held = take(fd, device)\n"
        "    try: os.open(path, os.O_WRONLY | os.O_NONBLOCK)\n"
        "    except BlockingIOError: writers.append('waits')\n"
        "    return held\n"
        "reading._lease = lease\n"
        "print(reading.read(path).data, writers)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "b'name: demo\\n' ['waits']\n")


def test_a_file_that_changes_while_it_is_read_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.read

    def slow(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if not data:
            os.utime(path)
        return data

    monkeypatch.setattr(os, "read", slow)
    assert read(path) == Busy()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away: needs root")
def test_a_file_of_somebody_else_is_read_without_proof(tmp_path: Path) -> None:
    (tmp_path / "banger.yaml").write_bytes(b"name: demo\n")
    tmp_path.chmod(0o755)
    # A process of its own for the other uid; the folders above are closed to it.
    code = (
        "import os; from pathlib import Path; from reconciler.sources.reading import read\n"
        f"os.chdir({str(tmp_path)!r}); os.setuid(65534); print(read(Path('banger.yaml')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "proven=False" in done.stdout, done.stderr


@pytest.mark.parametrize(("kind", "expected"), [("nfs4", Whole), ("cifs", Whole), ("ext4", Busy)])
def test_a_refusal_means_a_writer_only_where_leases_are_local(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: type
) -> None:
    device = path.stat().st_dev
    mounts = path.with_name("mountinfo")
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(f"20 1 0:999 / /proc rw - proc proc rw\n21 1 {number} / /x rw shared:1 - {kind} server:/x rw\n")
    monkeypatch.setattr(reading, "MOUNTS", mounts)
    with path.open("ab"):
        assert isinstance(read(path), expected)


def test_a_filesystem_without_leases(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, command: int, argument: int) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(22, "Invalid argument")
        return 0

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    found = read(path)
    assert isinstance(found, Whole)
    assert not found.proven


def test_what_has_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert read(path) == Failed("is missing", missing=True)
    path.symlink_to("nowhere")
    assert read(path) == Failed("is a symbolic link to nowhere, which is missing", missing=True)
    path.unlink()
    path.symlink_to("x")
    assert read(path) == Failed("cannot be read: Too many levels of symbolic links")
    path.unlink()
    path.mkdir()
    assert read(path) == Failed("is a directory")
    path.rmdir()
    assert read(path / "below") == Failed("is missing", missing=True)
    path.touch()
    assert read(path / "below") == Failed("cannot be read: Not a directory")
    assert read(Path("/dev/null")) == Failed("is not a regular file")


def test_a_fifo_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it would let a writer go on that waits for its reader."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    assert read(fifo) == Failed("is not a regular file")


def test_a_fifo_that_takes_the_file_s_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.touch()
    real = os.open

    def swapped(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(name, flags)

    monkeypatch.setattr(os, "open", swapped)
    assert read(path) == Failed("is not a regular file")


def test_a_mebibyte_is_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * MAX_BYTES)
    found = read(path)
    assert isinstance(found, Whole)
    assert len(found.data) == MAX_BYTES
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert read(path) == Failed("is larger than 1 MiB")


def test_the_trail_of_a_path(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "real" / "deep").mkdir(parents=True)
    (root / "plain").touch()
    assert directories(root / "plain") == [root]
    (root / "links").mkdir()
    (root / "links" / "file").symlink_to("../real/current/../deep/banger.yaml")
    (root / "real" / "current").symlink_to(root / "real" / "deep")
    assert directories(root / "links" / "file") == [root / "links", root / "real", root / "real" / "deep"]


def test_the_trail_of_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "loop").symlink_to("loop")
    assert directories(root / "loop") == [root]
    assert directories(root / "none" / "file") == [root / "none"]


def test_a_relative_path_has_a_trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert directories(Path("banger.yaml")) == [tmp_path.resolve()]
