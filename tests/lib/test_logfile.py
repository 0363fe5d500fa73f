"""Logs that another program appends to: bounded while they grow, and what was written when."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reconciler.lib import logfile

BLOCK = 1 << 16


def grow(log: Path, count: int, byte: bytes = b"x") -> None:
    with log.open("ab") as file:
        file.write((byte * 63 + b"\n") * (count // 64))


def on_disk(log: Path) -> int:
    return log.stat().st_blocks * 512


def test_what_is_old_goes_and_the_newest_stays_in_its_place(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as writer:  # as the VMM: it stays open, and appends
        writer.write(b"old\n" * (20 << 18))
        writer.flush()
        assert logfile.bound(log)
        writer.write(b"new\n")
    size = (20 << 20) + 4
    assert log.stat().st_size == size
    assert on_disk(log) < 10 << 20
    with log.open("rb") as file:
        start = logfile.first_line(file)
        assert size - logfile.MOST < start <= size - logfile.KEEP
        file.seek(start)
        kept = file.read()
    assert kept.startswith(b"old\n") and kept.endswith(b"old\nnew\n") and b"\0" not in kept


def test_what_is_small_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert not logfile.bound(log)
    grow(log, 10 * BLOCK)
    assert not logfile.bound(log, keep=4 * BLOCK, most=10 * BLOCK)
    with log.open("rb") as file:
        assert logfile.first_line(file) == 0


def test_however_much_is_written_little_is_on_the_disk(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(50):
        grow(log, 8 * BLOCK)
        logfile.bound(log, keep=4 * BLOCK, most=16 * BLOCK)
        assert on_disk(log) <= 17 * BLOCK
    assert log.stat().st_size == 400 * BLOCK


def test_without_holes_it_begins_anew_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "_punch", lambda fd, end: False)
    log = tmp_path / "log"
    with log.open("ab") as writer:
        writer.write(b"old\n" * BLOCK + b"end\n")
        writer.flush()
        assert logfile.bound(log, keep=BLOCK, most=2 * BLOCK)
        writer.write(b"new\n")
    assert log.read_bytes() == b"old\n" * (BLOCK // 4 - 1) + b"end\nnew\n"


def test_a_length_that_no_file_system_has_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "_FAR", 4 * BLOCK)
    log = tmp_path / "log"
    grow(log, 8 * BLOCK)
    assert logfile.bound(log, keep=BLOCK, most=2 * BLOCK)
    assert log.stat().st_size == 1 << 16


def test_another_file_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    grow(other, 8 * BLOCK)
    (tmp_path / "log").symlink_to(other)
    with pytest.raises(OSError) as caught:
        logfile.bound(tmp_path / "log", keep=BLOCK, most=2 * BLOCK)
    assert caught.value.errno == errno.ELOOP
    assert on_disk(other) >= 8 * BLOCK


def test_where_a_reader_stands_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    grow(log, 8 * BLOCK)
    logfile.bound(log, keep=BLOCK, most=2 * BLOCK)
    with log.open("rb") as file:
        file.seek(5)
        assert logfile.beginning(file.fileno()) == 7 * BLOCK
        assert logfile.beginning(file.fileno(), 8 * BLOCK) == 8 * BLOCK
        assert (file.tell(), os.lseek(file.fileno(), 0, os.SEEK_CUR)) == (5, 5)


def test_since_a_moment_nothing_is_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    known = None
    for at, text in ((100.0, b"a"), (101.0, b""), (102.0, b"bb"), (200.0, b"ccc")):
        with log.open("ab") as file:
            file.write(text)
        known = logfile.note_time(log, at, known)
    assert logfile.times(log).read_text() == "100.0 1\n102.0 3\n200.0 6\n"
    assert [logfile.since(log, moment) for moment in (50, 100, 101.9, 150, 200, 900)] == [0, 1, 1, 3, 6, 6]


def test_what_was_written_before_a_clock_was_set_back_is_not_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    logfile.times(log).write_text("100.0 1\n200.0 2\n50.0 3\n120.0 4\n")
    assert logfile.since(log, 110) == 1


def test_a_log_that_began_anew_has_only_its_own_times(tmp_path: Path) -> None:
    log = tmp_path / "log"
    logfile.times(log).write_text("100.0 900\n200.0 1000\n300.0 10\n400.0 20\n")
    assert logfile.since(log, 350) == 10
    assert logfile.since(log, 250) == 0


@pytest.mark.parametrize("text", ["", "100.0 1", "x y\n", "1 2 3\n", "\0\0\n\n"])
def test_a_record_that_is_none_tells_nothing(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log"
    assert logfile.since(log, 100) is None
    logfile.times(log).write_text(text)
    assert logfile.since(log, 100) is None


def test_a_log_that_is_not_there_has_no_times(tmp_path: Path) -> None:
    assert logfile.note_time(tmp_path / "log", 1.0, None) is None
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_bounded_and_exact_where_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "INDEX_MOST", 1000)
    log = tmp_path / "log"
    known, seen = None, 0
    for second in range(2000):
        with log.open("ab") as file:
            file.write(b".")
        known = logfile.note_time(log, second, known)
        seen = max(seen, logfile.times(log).stat().st_size)
    assert seen <= 1000
    assert [logfile.since(log, moment) for moment in (1990, 1999)] == [1991, 2000]
    old = logfile.since(log, 1000)
    assert old is not None and old <= 1001
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log", "log.times"]
