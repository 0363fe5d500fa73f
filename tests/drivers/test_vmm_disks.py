"""ext4 images. e2fsprogs is all that these need: neither root nor a mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.drivers.vmm import disks
from reconciler.lib import atomic
from reconciler.lib.errors import BangerError
from reconciler.lib.run import CommandError, which
from reconciler.lib.units import GIB, MIB

pytestmark = pytest.mark.skipif(which("mkfs.ext4") is None, reason="e2fsprogs is not installed")


def tool(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    program = which(name)
    assert program
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def features(path: Path) -> str:
    return tool("dumpe2fs", "-h", path).stdout


@pytest.mark.parametrize("size", [16 * MIB, 4 * GIB])
def test_a_new_disk_is_sparse_journalled_and_roots(tmp_path: Path, size: int) -> None:
    path = tmp_path / "d.ext4"
    assert disks.create_ext4(path, size, "data")
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 < 8 * MIB
    assert path.stat().st_mode & 0o777 == 0o600
    assert "has_journal" in features(path)
    assert "Filesystem volume name:   data" in features(path)
    assert tool("e2fsck", "-fn", path).returncode == 0
    owner = tool("debugfs", "-R", "stat <2>", path).stdout.split("User:")[1].split()
    assert (owner[0], owner[2]) == ("0", "0")
    assert atomic.corpses(tmp_path) == []


def test_what_exists_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "d.ext4"
    path.write_text("mine")
    assert not disks.create_ext4(path, GIB, "data")
    assert path.read_text() == "mine"
    (tmp_path / "link").symlink_to("nowhere")
    assert not disks.create_ext4(tmp_path / "link", GIB, "data")


def test_a_disk_that_appears_meanwhile_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.ext4"
    monkeypatch.setattr(disks, "_sync", lambda image: path.write_text("theirs") if not path.exists() else None)
    assert not disks.create_ext4(path, GIB, "data")
    assert path.read_text() == "theirs"


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str | Path], **more: object) -> None:
        raise CommandError("failed", [str(word) for word in argv], 1, "No space left on device")

    monkeypatch.setattr(disks, "run", fail)
    with pytest.raises(BangerError, match="no space left") as caught:
        disks.create_ext4(tmp_path / "d.ext4", GIB, "data")
    assert caught.value.error_class.worth_retrying
    assert caught.value.hint == f"df -h {tmp_path}"
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("size", "label", "words"),
    [(1 * MIB, "a", "at least 16.0 MiB"), (GIB + 1, "a", "in steps of 4096"), (GIB, "x" * 17, "longer than 16")],
)
def test_impossible_wishes_are_refused(tmp_path: Path, size: int, label: str, words: str) -> None:
    with pytest.raises(BangerError, match=words):
        disks.create_ext4(tmp_path / "d.ext4", size, label)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tool_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.lib.run.shutil.which", lambda program, path: None)
    with pytest.raises(BangerError) as caught:
        disks.create_ext4(tmp_path / "d.ext4", GIB, "data")
    assert caught.value.hint == "apt-get install e2fsprogs"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "d.ext4"
    disks.create_ext4(path, 16 * MIB, "data")
    content = tmp_path / "content"
    content.write_text("precious")
    tool("debugfs", "-w", "-R", f"write {content} kept", path)
    return path


def kept(path: Path) -> str:
    return tool("debugfs", "-R", "cat kept", path).stdout


def test_growing_keeps_the_content_and_happens_once(disk: Path) -> None:
    disk.chmod(0o640)
    assert disks.grow_ext4(disk, 4 * GIB)
    assert disk.stat().st_size == 4 * GIB
    assert "Block count:              1048576" in features(disk)
    assert tool("e2fsck", "-fn", disk).returncode == 0
    assert kept(disk) == "precious"
    assert disk.stat().st_mode & 0o777 == 0o640
    before = disk.stat()
    assert not disks.grow_ext4(disk, 4 * GIB)
    assert disk.stat().st_mtime_ns == before.st_mtime_ns


def test_a_kill_in_the_middle_leaves_the_old_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Path, destination: Path) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        disks.grow_ext4(disk, GIB)
    monkeypatch.undo()
    assert disk.stat().st_size == 16 * MIB
    assert kept(disk) == "precious"
    assert disks.grow_ext4(disk, GIB)
    assert kept(disk) == "precious"


def test_a_disk_never_shrinks(disk: Path) -> None:
    before = disk.read_bytes()
    with pytest.raises(BangerError, match=r"cannot become 15\.0 MiB"):
        disks.grow_ext4(disk, 15 * MIB)
    assert disk.read_bytes() == before


def test_a_longer_file_than_file_system_is_filled(disk: Path) -> None:
    os.truncate(disk, 64 * MIB)
    assert disks.grow_ext4(disk, 64 * MIB)
    assert "Block count:              16384" in features(disk)


def test_damage_is_reported_and_not_made_worse(disk: Path) -> None:
    # The root folder's inode is empty: what e2fsck -p leaves to a human.
    tool("debugfs", "-w", "-R", "clri <2>", disk)
    before = disk.read_bytes()
    with pytest.raises(BangerError, match="damaged") as caught:
        disks.grow_ext4(disk, GIB)
    assert caught.value.hint
    assert disk.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\0" * MIB])
def test_what_is_no_ext4_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.ext4"
    path.write_bytes(content)
    with pytest.raises(BangerError, match="no ext4"):
        disks.grow_ext4(path, GIB)
    assert path.read_bytes() == content


def test_a_missing_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match=r"cannot grow .*No such file"):
        disks.grow_ext4(tmp_path / "none", GIB)


@pytest.mark.skipif(shutil.which("qemu-storage-daemon") is None, reason="qemu-utils is not installed")
def test_an_image_that_qemu_has_open_is_in_use(disk: Path, tmp_path: Path) -> None:
    node = f"driver=file,node-name=n,filename={disk}"
    export = "type=nbd,id=e,node-name=n,writable=on"
    daemon = ["qemu-storage-daemon", "--blockdev", node, "--nbd-server", f"addr.type=unix,addr.path={tmp_path}/s"]
    subprocess.run([*daemon, "--export", export, "--pidfile", str(tmp_path / "pid"), "--daemonize"], check=True)
    try:
        with pytest.raises(BangerError, match="is in use"):
            disks.grow_ext4(disk, GIB)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 15)
