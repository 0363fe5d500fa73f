"""A build in another process looks like one in this one: its progress, its errors, its end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.daemon import builder as server
from reconciler.drivers.images import build
from reconciler.lib import builder, cancel
from reconciler.lib.atomic import STAGING, staging
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.once import remove_tree
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import DebianImage, DebianKernel, Image, Kernel

IMAGE = Image(name="base", source=DebianImage(suite="bookworm", packages=("git",)), kernel="debian")


class Heard:
    def __init__(self) -> None:
        self.updates: list[tuple[float | None, str]] = []

    def update(self, fraction: float | None, message: str) -> None:
        self.updates.append((fraction, message))


class Listener:
    """What systemd does for the unit: one `serve` for each connection."""

    def __init__(self, path: Path, paths: Paths, make: Mapping[str, server.Make]) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.paths, self.make = paths, make
        self.gone = threading.Event()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self) -> None:
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rb") as source, connection.makefile("wb", buffering=0) as sink:
            server.serve(source, sink, self.paths, make=self.make, gone=self.gone.set)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path)})


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Some test cancels what this process does."""
    yield
    cancel.reset()


def listening(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, **make: server.Make) -> Listener:
    made = Listener(tmp_path / "builder.sock", paths, make or server.MAKE)
    monkeypatch.setenv(builder.VARIABLE, str(made.path))
    return made


def test_an_image_is_made_elsewhere(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def make(of: Any, where: Paths, progress: Any) -> None:
        asked.append((server.from_json(Image, of), where))
        progress.update(None, "waiting")
        progress.update(0.5, "half")

    listening(tmp_path, paths, monkeypatch, image=make)
    heard = Heard()
    build.build(IMAGE, paths, heard)
    assert asked == [(IMAGE, paths)]
    assert heard.updates == [(None, "waiting"), (0.5, "half")]


def test_a_kernel_is_fetched_elsewhere(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.drivers.kernels.fetch import fetch

    kernel = Kernel(name="debian", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))
    asked: list[Any] = []
    listening(
        tmp_path, paths, monkeypatch, kernel=lambda of, where, progress: asked.append(server.from_json(Kernel, of))
    )
    fetch(kernel, paths, Silent())
    assert asked == [kernel]


def test_what_is_there_is_not_asked_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(builder.VARIABLE, "/nowhere/builder.sock")
    paths.image(IMAGE.id).root.mkdir(parents=True)
    build.build(IMAGE, paths, Silent())


def test_its_error_is_ours(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(of: Any, where: Paths, progress: Any) -> None:
        raise BangerError("no mirror\nanswers", hint="wait", replay="apt update", error_class=ErrorClass.RETRYABLE)

    listening(tmp_path, paths, monkeypatch, image=fail)
    with pytest.raises(BangerError) as caught:
        build.build(IMAGE, paths, Silent())
    error = caught.value
    assert (error.cause, error.hint, error.replay) == ("no mirror\nanswers", "wait", "apt update")
    assert error.error_class is ErrorClass.RETRYABLE


def test_a_builder_that_dies_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def die() -> None:
            connection, _ = listener.accept()
            connection.recv(builder.LONGEST)  # all of it, or the end would be a reset
            connection.sendall(b'{"fraction": 0.1, "mess')
            connection.close()

        threading.Thread(target=die, daemon=True).start()
        with pytest.raises(BangerError, match="does not answer") as caught:
            builder.ask(tmp_path / "s", "image", {}, Silent())
    assert caught.value.error_class is ErrorClass.RETRYABLE


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="does not answer") as caught:
        builder.ask(tmp_path / "none", "image", {}, Silent())
    assert caught.value.error_class is ErrorClass.RETRYABLE


def test_a_cancelled_build_ends_on_both_sides(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def wait(of: Any, where: Paths, progress: Any) -> None:
        begun.set()
        listener.gone.wait(10)

    listener = listening(tmp_path, paths, monkeypatch, image=wait)
    asker: list[BaseException] = []

    def ask() -> None:
        try:
            build.build(IMAGE, paths, Silent())
        except CancelledError as problem:
            asker.append(problem)

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(10)
    cancel.cancel()
    thread.join(10)
    assert len(asker) == 1
    assert listener.gone.wait(10)


@pytest.mark.parametrize(
    "request_line",
    [
        {"make": "shell", "of": "id"},
        {"make": "image", "of": {"name": "x"}},
        {"make": "image", "of": {"name": "x", "suite": "bookworm;id", "packages": [], "kernel": "k"}},
        {"make": "kernel", "of": {"name": "k", "suite": "bookworm", "package": "--help"}},
        {"make": "remove", "of": "/etc"},
        {"make": ["image"], "of": {}},
        "image",
    ],
)
def test_nothing_else_is_made(request_line: object, paths: Paths) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as source, theirs.makefile("wb", buffering=0) as sink:
        ours.sendall(json.dumps(request_line).encode() + b"\n")
        server.serve(source, sink, paths, gone=lambda: None)
        assert "error" in json.loads(ours.makefile().readline())


def test_a_left_over_is_removed_elsewhere(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    corpse = paths.images / STAGING / "corpse"
    (corpse / "deep").mkdir(parents=True)
    # As if the files in it were subordinate users'.
    monkeypatch.setattr("reconciler.lib.once._rmtree", lambda path, keep: None)
    listening(tmp_path, paths, monkeypatch, remove=lambda of, where, progress: __import__("shutil").rmtree(of))
    remove_tree(corpse)
    assert not corpse.exists()


def test_only_left_overs_of_the_cache_are_removed(paths: Paths, tmp_path: Path) -> None:
    outside = tmp_path / "other" / STAGING / "x"
    outside.mkdir(parents=True)
    image = paths.images / "abc"
    image.mkdir(parents=True)
    (paths.images / STAGING).mkdir()
    link = paths.images / STAGING / "link"
    link.symlink_to(outside)
    with staging(paths.images) as busy:
        for folder in (
            outside,
            image,
            link,
            busy,
            paths.images / STAGING / ".." / ".." / ".." / "other" / STAGING / "x",
        ):
            with pytest.raises(BangerError, match="left-over"):
                server.remove(str(folder), paths, Silent())
        assert outside.is_dir() and image.is_dir() and busy.is_dir()
    corpse = paths.images / STAGING / "corpse"
    corpse.mkdir(parents=True, exist_ok=True)
    server.remove(str(corpse), paths, Silent())
    assert not corpse.exists()
