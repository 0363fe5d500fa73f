"""Every way to save a file: each content is seen once and whole, and never one that nobody has saved.

BANGER_SAVES says how often each is done.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.sources.following import SAVES, following, spec

Save = Callable[[Path, int], bytes]


def run(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd=cwd)


def beside(path: Path, number: int) -> Path:
    """A new content, ready to be put in place."""
    other = path.parent / "new.tmp"
    other.write_bytes(spec(number))
    return other


def in_place(path: Path, number: int) -> bytes:
    path.write_bytes(spec(number))
    return spec(number)


def write_slowly(file: IO[bytes], data: bytes) -> None:
    """Twenty writes within a second, which stall in the middle for much longer than a content has to stand."""
    size = -(-len(data) // 20)
    for chunk in range(20):
        file.write(data[chunk * size : (chunk + 1) * size])
        time.sleep(0.25 if chunk == 10 else 0.02)


def in_chunks(path: Path, number: int) -> bytes:
    """By a writer that keeps the file open."""
    with path.open("wb", buffering=0) as file:
        write_slowly(file, spec(number))
    return spec(number)


def over_the_old(path: Path, number: int) -> bytes:
    """Over the old content, and cut to length only at the end."""
    with path.open("r+b", buffering=0) as file:
        write_slowly(file, spec(number))
        file.truncate()
    return spec(number)


def rename(path: Path, number: int) -> bytes:
    beside(path, number).rename(path)
    return spec(number)


def rename_from_elsewhere(path: Path, number: int) -> bytes:
    new = path.parent.parent / "elsewhere.tmp"
    new.write_bytes(spec(number))
    new.rename(path)
    return spec(number)


def copy(path: Path, number: int) -> bytes:
    run("cp", beside(path, number), path)
    return spec(number)


def install(path: Path, number: int) -> bytes:
    run("install", "-m", "644", beside(path, number), path)
    return spec(number)


def sed(path: Path, number: int) -> bytes:
    expected = path.read_bytes().replace(b"vms:\n", f"vms:\n# {number}\n".encode())
    run("sed", "-i", f"s/^vms:/vms:\\n# {number}/", path)
    return expected


def remove_and_write(path: Path, number: int) -> bytes:
    path.unlink()
    path.write_bytes(spec(number))
    return spec(number)


def vim(mode: str) -> Save:
    def save(path: Path, number: int) -> bytes:
        new = path.parent.parent / "new.txt"
        new.write_bytes(spec(number))
        settings = f"set backup writebackup backupcopy={mode} backupdir=. directory=."
        edits = ["%d _", f"0read {new}", "wq"]  # ex mode leaves no empty line behind
        argv = ["vim", "-u", "NONE", "-i", "NONE", "-N", "-es", *(w for e in (settings, *edits) for w in ("-c", e))]
        run(*argv, path.name, cwd=path.parent)
        return spec(number)

    return save


def nano(path: Path, number: int) -> bytes:
    """Types a comment into the first line, on a terminal."""
    expected = f"# typed {number}\n".encode() + path.read_bytes()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp("nano", ["nano", "--ignorercfiles", "--backup", str(path)])
    shown = b""
    try:
        while b"Exit" not in shown:  # before, it throws away what is typed
            shown += os.read(terminal, 4096)
        os.write(terminal, f"# typed {number}\r\x0f\r\x18".encode())
        while True:
            os.read(terminal, 4096)
    except OSError:
        pass  # the terminal ends with nano
    finally:
        os.close(terminal)
        assert os.waitpid(pid, 0)[1] == 0
    return expected


HABITS: dict[str, Save] = {
    "in place": in_place,
    "in place, in chunks": in_chunks,
    "over the old, in chunks": over_the_old,
    "rename": rename,
    "rename from elsewhere": rename_from_elsewhere,
    "cp": copy,
    "install": install,
    "sed -i": sed,
    "remove and write": remove_and_write,
    "vim, backupcopy=yes": vim("yes"),
    "vim, backupcopy=no": vim("no"),
    "vim, backupcopy=auto": vim("auto"),
    "nano": nano,
}
# In a short run, a directory is held to what differs most.
VARIED = {"in place, in chunks", "rename", "remove and write", "vim, backupcopy=no"}
SLOW = {"in place, in chunks", "over the old, in chunks"}


@pytest.mark.parametrize(
    ("kind", "habit"),
    [("file", habit) for habit in HABITS] + [("directory", h) for h in HABITS if SAVES >= 20 or h in VARIED],
)
def test_each_save_is_seen_once_and_whole(tmp_path: Path, kind: str, habit: str) -> None:
    program = habit.partition(",")[0]
    if program in ("vim", "nano") and shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    # A second each: one in the short run.
    saves = 1 if habit in SLOW and SAVES < 20 else SAVES
    folder = tmp_path / "watched"
    folder.mkdir()
    path = folder / "banger.yaml"
    path.write_bytes(spec(0))
    with following(folder if kind == "directory" else path) as followed:
        assert followed.next().data == spec(0)
        saved = [spec(0)]
        for number in range(1, saves + 1):
            saved.append(HABITS[habit](path, number))
            followed.next()
        assert followed.rest() == []
    assert followed.contents == saved
    assert {content.path for content in followed.told} == {path}


def test_a_swap_of_symbolic_links(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap: the file leads to ..data, and that to a folder for each version."""

    def publish(number: int) -> bytes:
        version = tmp_path / f"..{number}"
        version.mkdir()
        (version / "banger.yaml").write_bytes(spec(number))
        (tmp_path / "..data_tmp").symlink_to(version.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        return spec(number)

    saved = [publish(0)]
    path = tmp_path / "banger.yaml"
    path.symlink_to("..data/banger.yaml")
    with following(path) as followed:
        assert followed.next().data == saved[0]
        for number in range(1, SAVES + 1):
            saved.append(publish(number))
            followed.next()
            shutil.rmtree(tmp_path / f"..{number - 1}")
        assert followed.rest() == []
    assert followed.contents == saved


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_checkout_of_another_branch(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        run("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words, cwd=tmp_path)

    path = tmp_path / "deep" / "banger.yaml"
    path.parent.mkdir()
    git("init", "-q")
    for number in (0, 1):
        git("checkout", "-q", "-b", f"branch-{number}")
        path.write_bytes(spec(number))
        git("add", ".")
        git("commit", "-q", "-m", str(number))
    with following(path) as followed:
        assert followed.next().data == spec(1)
        for number in range(SAVES):
            git("checkout", "-q", f"branch-{number % 2}")
            followed.next()
        assert followed.rest() == []
    assert followed.contents == [spec(1), *(spec(number % 2) for number in range(SAVES))]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_directory_that_is_replaced(tmp_path: Path, kind: str) -> None:
    def make(name: str, number: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "banger.yaml").write_bytes(spec(number))
        return folder

    folder = make("watched", 0)
    with following(folder if kind == "directory" else folder / "banger.yaml") as followed:
        assert followed.next().data == spec(0)
        for number in range(1, SAVES + 1):
            new = make("new", number)
            folder.rename(tmp_path / f"old-{number}")
            new.rename(folder)
            followed.next()
        assert followed.rest() == []
    assert followed.contents == [spec(number) for number in range(SAVES + 1)]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_directory_that_is_removed_and_made_again(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    path = folder / "banger.yaml"
    path.write_bytes(spec(0))
    with following(folder if kind == "directory" else path) as followed:
        assert followed.next().data == spec(0)
        for number in range(1, 3 if SAVES < 20 else SAVES):  # looks once a second while it is gone
            shutil.rmtree(folder)
            folder.mkdir()
            path.write_bytes(spec(number))
            followed.next()
        assert followed.rest() == []
    assert followed.contents == [spec(number) for number in range(len(followed.told))]
