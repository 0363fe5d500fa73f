"""An artifact is made once, however many ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.lib import once as module
from reconciler.lib import run
from reconciler.lib.atomic import STAGING, corpses, exclusive
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.once import once, remove_tree
from reconciler.lib.progress import Silent


def staged(folder: Path) -> list[Path]:
    return sorted((folder / STAGING).glob("*"))


def test_ten_askers_cause_one_making(tmp_path: Path) -> None:
    made: list[str] = []
    barrier = threading.Barrier(10)

    def make(artifact: Path, scratch: Path) -> None:
        made.append("x")
        (artifact / "file").write_text("done")

    def ask(_: int) -> None:
        barrier.wait()
        once(tmp_path / "it", Silent(), make)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(ask, range(10)))
    assert made == ["x"]
    assert (tmp_path / "it/file").read_text() == "done"
    assert staged(tmp_path) == []


def test_a_failed_making_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    def fail(artifact: Path, scratch: Path) -> None:
        (artifact / "half").write_text("x")
        (scratch / "deep").mkdir()
        raise BangerError("no luck")

    with pytest.raises(BangerError, match="no luck"):
        once(tmp_path / "it", Silent(), fail)
    assert not (tmp_path / "it").exists()
    assert staged(tmp_path) == []
    once(tmp_path / "it", Silent(), lambda artifact, scratch: (artifact / "file").touch())
    assert (tmp_path / "it/file").exists()


def test_a_disk_error_names_the_folder(tmp_path: Path) -> None:
    def fail(artifact: Path, scratch: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BangerError, match=r"cannot write below .*: No space left on device") as caught:
        once(tmp_path / "it", Silent(), fail)
    assert caught.value.hint


def test_a_cancelled_waiter_stops_waiting(tmp_path: Path) -> None:
    class Cancelling:
        """Tells that the waiter has come to wait, and stops it."""

        def update(self, fraction: float | None, message: str) -> None:
            run.cancel_all()

    with exclusive(tmp_path / module._LOCKS / "it"):
        try:
            with pytest.raises(CancelledError):
                once(tmp_path / "it", Cancelling(), lambda artifact, scratch: None)
        finally:
            run.reset_cancel()
    assert not (tmp_path / "it").exists()


def test_remove_tree_does_not_mind_what_is_not_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")


def test_remove_tree_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "precious")
    remove_tree(tmp_path / "tree", keep=True)
    assert (tmp_path / "precious").is_dir()
    assert list((tmp_path / "tree").iterdir()) == []
    assert corpses(tmp_path) == []
