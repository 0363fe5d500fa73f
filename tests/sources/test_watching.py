"""A source among other files, floods of events, limits and losses: still right, and cheaply."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from reconciler.lib.clock import SystemClock
from reconciler.sources import file as module
from reconciler.sources import reading, settling
from reconciler.sources.file import Content, FileSource
from tests.sources.following import PATIENCE, SAVES, eventually, following, spec

STORM = 200_000 if SAVES >= 100 else 20_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "banger.yaml"
    path.write_bytes(spec(0))
    return path


def open_files() -> set[str]:
    return {f"{fd.name} {os.readlink(fd)}" for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)}


def test_a_thousand_saves_are_a_few_contents(path: Path) -> None:
    with following(path) as followed:
        followed.until(spec(0))
        for number in range(1, 1001):
            path.write_bytes(spec(number))
        followed.until(spec(1000))
        assert followed.rest() == []
    assert len(followed.told) <= 50
    assert set(followed.contents) <= {spec(number) for number in range(1001)}


def test_a_flood_of_foreign_events(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a rate, the watches are taken away: what the flood costs does not grow with it."""
    seen = 0
    real = module._Watches.on_event

    def count(self: module._Watches, event: object) -> None:
        nonlocal seen
        seen += 1
        real(self, event)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Watches, "on_event", count)
    monkeypatch.setattr(module, "_FLOOD", 300)  # also a slow machine gets there
    others = [path.with_name("other-1"), path.with_name("other-2")]
    with following(path) as followed:
        followed.until(spec(0))
        for number in range(STORM // 4):  # each is created, closed, and removed
            other = others[number % 2]
            other.touch()
            other.unlink()
        path.write_bytes(spec(1))
        followed.until(spec(1))
        assert followed.rest() == []
    assert 0 < seen < STORM // 2


def test_after_a_flood_events_count_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLOOD", 10)
    monkeypatch.setattr(module, "_EBB", 0.1)
    watches = module._Watches(lambda: None)
    try:
        watches.cover([path.parent], 0.0)
        for number in range(20):
            path.with_name(f"other-{number}").touch()
        eventually(lambda: watches._events > 10)
        watches.cover([path.parent], 0.5)
        assert (watches.period, len(watches._armed)) == (module._FLOOD_PERIOD, 0)
        watches.cover([path.parent], 0.7)
        assert (watches.period, len(watches._armed)) == (None, 1)
    finally:
        watches.close()


def test_lost_events_renew_the_watches(path: Path) -> None:
    watches = module._Watches(lambda: None)
    try:
        watches.cover([path.parent], 0.0)
        before = watches._inotify
        watches.on_queue_overflow()
        watches.cover([path.parent], 0.1)
        assert watches._inotify is not before
        assert len(watches._armed) == 1
    finally:
        watches.close()


def test_directories_that_no_longer_matter_are_let_go(tmp_path: Path) -> None:
    watches = module._Watches(lambda: None)
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    try:
        watches.cover(folders[:2], 0.0)
        watches.cover(folders[1:], 0.1)
        assert set(watches._armed) == {(folder.stat().st_dev, folder.stat().st_ino) for folder in folders[1:]}
        folders[1].rmdir()
        eventually(lambda: len(watches._armed) == 1)  # its end comes as an event
        watches.cover([folders[2], folders[1]], 0.2)
        assert watches.problem == f"cannot watch {folders[1]}: No such file or directory"
    finally:
        watches.close()


@pytest.mark.parametrize("where", ["add_callback", "__init__"])
def test_without_watches_the_timer_finds_it(path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def limit(*_: object) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(InotifyFD, where, limit)
    monkeypatch.setattr(module, "_BLIND_PERIOD", 0.05)
    with following(path) as followed:
        followed.until(spec(0))
        assert followed.source.problem == "cannot watch files, looks at them instead: inotify watch limit reached"
        path.write_bytes(spec(1))
        followed.until(spec(1))


def test_without_any_event_the_rescan_finds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Watches, "on_event", lambda *_: None)
    with following(path, rescan=0.1) as followed:
        followed.until(spec(0))
        path.write_bytes(spec(1))
        followed.until(spec(1))


def test_a_poke_reads_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what looks unchanged."""
    reads: list[Path] = []

    def read(path: Path) -> reading.Whole | reading.Busy | reading.Failed:
        reads.append(path)
        return reading.read(path)

    monkeypatch.setattr(settling, "read", read)
    with following(path, rescan=3600.0) as followed:
        followed.until(spec(0))
        before = len(reads)
        followed.source.poke()
        eventually(lambda: len(reads) > before)
        assert followed.rest() == []


def test_only_specifications_of_a_directory_count(tmp_path: Path) -> None:
    names = ["a.yaml", "b.yaml", "b.yaml~", ".b.yaml.swp", ".c.yaml", "#d.yaml", "#e.yaml#", "4913", "f.yml", "g.json"]
    for name in names:
        (tmp_path / name).write_text(name)
    with following(tmp_path) as followed:
        assert {followed.next().data, followed.next().data} == {b"a.yaml", b"b.yaml"}
        elsewhere = tmp_path / "elsewhere" / "file"
        elsewhere.parent.mkdir()
        elsewhere.write_text("linked")
        (tmp_path / "h.yaml").symlink_to(elsewhere)
        assert followed.next().data == b"linked"
        elsewhere.write_text("other")
        assert followed.next() == Content(tmp_path / "h.yaml", b"other", None, followed.told[-1].digest)
        assert followed.rest() == []


def test_a_file_that_leaves_its_directory_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.sources.settling.GRACE", 0.1)
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a")
    with following(tmp_path) as followed:
        assert followed.next().data == b"a"
        path.unlink()
        assert followed.next() == Content(path, None, "is gone", None)
        eventually(lambda: followed.source._files == {})
        path.write_bytes(b"a")
        assert followed.next().data == b"a"
        assert followed.rest() == []


def test_a_file_for_a_moment_is_nobody_s_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.sources.settling.GRACE", 1.0)
    path = tmp_path / "moment.yaml"
    with following(tmp_path) as followed:
        path.touch()  # empty, so that it does not count at once
        eventually(lambda: path in followed.source._files)
        path.unlink()
        eventually(lambda: path not in followed.source._files)
        assert followed.rest() == []


def test_a_directory_that_cannot_be_listed_keeps_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a")
    with following(tmp_path) as followed:
        assert followed.next().data == b"a"

        def refuse(path: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "scandir", refuse)
        (tmp_path / "a.yaml").write_bytes(b"b")
        assert followed.next().data == b"b"
        assert followed.source.problem == f"cannot list {tmp_path}: Permission denied"
        assert followed.rest() == []


def test_a_directory_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLIND_PERIOD", 0.05)
    folder = tmp_path / "banger.d"
    with following(folder, directory=True) as followed:
        folder.mkdir()
        (folder / "a.yaml").write_bytes(b"a")
        assert followed.next() == Content(folder / "a.yaml", b"a", None, followed.told[-1].digest)


def test_nothing_is_written_beside_the_file(path: Path) -> None:
    """I9."""
    before = path.parent.stat()
    with following(path) as followed:
        followed.until(spec(0))
    after = path.parent.stat()
    assert list(path.parent.iterdir()) == [path]
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_its_own_reading_is_no_event(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []
    monkeypatch.setattr(module._Watches, "on_event", lambda _, event: events.append(event))
    with following(path) as followed:
        followed.until(spec(0))
        followed.source.poke()
        path.chmod(0o600)
        eventually(lambda: bool(events))
    assert len(events) == 1


def test_a_callback_that_raises_ends_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = threading.Semaphore(0)

    def changed(content: Content) -> None:
        told.release()
        raise RuntimeError("no room")

    source = FileSource(path, changed, clock=SystemClock(), settle=0.01)
    source.start()
    try:
        assert told.acquire(timeout=PATIENCE)
        path.write_bytes(spec(1))
        assert told.acquire(timeout=PATIENCE)
    finally:
        source.stop()
    assert "no room" in capsys.readouterr().err


def test_it_ends_and_leaves_nothing_open(path: Path) -> None:
    before, threads = open_files(), threading.active_count()
    for _ in range(20):
        with following(path) as followed:
            followed.until(spec(0))
    assert open_files() == before
    assert threading.active_count() == threads
    followed.source.stop()


def test_it_can_be_ended_before_it_began(path: Path) -> None:
    FileSource(path, print, clock=SystemClock()).stop()
