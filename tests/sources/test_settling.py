"""When a content counts, second by second: no time passes but the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.sources import reading, settling
from reconciler.sources.reading import Busy, Failed, Whole
from reconciler.sources.settling import GRACE, PATIENCE, Content, Watched

SETTLE = 0.1


class File(Watched):
    """A watched file in a world of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SETTLE)
        self.now = 1000.0

    def save(self, data: bytes) -> None:
        self.path.write_bytes(data)

    def after(self, seconds: float, *, thorough: bool = False) -> bytes | str | None:
        """Looks after so many seconds; the data or the problem that was told."""
        self.now += seconds
        content = self.look(self.now, thorough=thorough)
        return None if content is None else content.data if content.data is not None else content.problem

    def settled(self) -> bytes | str | None:
        """Looks whenever it asks for it, until it asks no more; what was told last."""
        told = self.after(0)
        while self.due is not None:
            assert self.due > self.now
            told = self.after(self.due - self.now) or told
        return told


@pytest.fixture
def file(tmp_path: Path) -> File:
    file = File(tmp_path / "banger.yaml")
    file.save(b"first\n")
    assert file.settled() == b"first\n"
    return file


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """No leases: another user's file."""
    real = reading.read

    def read(path: Path) -> Whole | Busy | Failed:
        found = real(path)
        return Whole(found.signature, found.data, found.digest, proven=False) if isinstance(found, Whole) else found

    monkeypatch.setattr(settling, "read", read)


def test_a_content_counts_once_it_has_stood(file: File) -> None:
    file.save(b"second\n")
    assert file.after(0) is None
    assert file.after(SETTLE * 0.9) is None
    assert file.after(SETTLE * 0.1) == b"second\n"
    assert file.due is None
    assert file.after(1) is None


def test_every_change_starts_the_wait_again(file: File) -> None:
    for number in range(30):
        file.save(f"part {number}\n".encode())
        assert file.after(SETTLE * 0.9) is None
    assert file.settled() == b"part 29\n"


def test_parts_by_a_writer_that_closes_in_between_do_not_count(file: File) -> None:
    parts = [b"name: demo\n", b"vms:\n", b"  a: {}\n", b"  b: {}\n"]
    file.save(b"")
    for part in parts:
        assert file.after(SETTLE * 0.9) is None
        with file.path.open("ab") as writer:
            writer.write(part)
    assert file.settled() == b"".join(parts)


def test_a_file_that_is_open_for_writing_does_not_count(file: File) -> None:
    with file.path.open("wb", buffering=0) as writer:
        writer.write(b"half")
        for _ in range(20):
            assert file.after(1) is None
        writer.write(b" and half\n")
    assert file.settled() == b"half and half\n"


def test_a_save_that_does_not_end_is_told_of(file: File) -> None:
    with file.path.open("wb", buffering=0) as writer:
        writer.write(b"half")
        assert file.after(0) is None
        assert file.after(PATIENCE - 0.1) is None
        assert file.after(0.2) == "is being written, and counts once that has ended"
        assert file.after(3600) is None
    assert file.settled() == b"half"


def test_waiting_for_a_writer_costs_ever_less(file: File) -> None:
    with file.path.open("ab", buffering=0) as writer:
        writer.write(b"half")
        naps = []
        for _ in range(8):
            file.after(0)
            assert file.due is not None
            naps.append(round(file.due - file.now, 3))
    assert naps == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_a_file_that_is_only_held_open_is_no_save(file: File) -> None:
    with file.path.open("ab"):
        assert file.after(1, thorough=True) is None
        assert file.due is None
        assert file.after(PATIENCE * 2, thorough=True) is None
    file.save(b"second\n")
    assert file.settled() == b"second\n"


def test_a_link_that_led_to_a_save_for_a_moment(file: File) -> None:
    """Back at the old target, nothing has changed and nothing is to be waited for."""
    first, second = file.path.rename(file.path.with_name("first")), file.path.with_name("second")
    file.path.symlink_to("first")
    assert file.settled() is None
    with second.open("wb", buffering=0) as writer:
        writer.write(b"half")
        file.path.unlink()
        file.path.symlink_to("second")
        assert file.after(0) is None
        file.path.unlink()
        file.path.symlink_to("first")
        assert file.settled() is None
    assert first.read_bytes() == b"first\n"


def test_a_link_that_leads_back_to_a_file_that_is_held_open(file: File) -> None:
    target = file.path.rename(file.path.with_name("target"))
    file.path.symlink_to("target")
    assert file.settled() is None
    file.path.unlink()
    assert file.settled() == "is gone"
    with target.open("ab"):
        file.path.symlink_to("target")
        assert file.after(0) is None
    assert file.settled() == b"first\n"


def test_a_file_that_never_stands_is_told_of(file: File) -> None:
    told = None
    for number in range(400):
        file.save(f"{number}\n".encode())
        told = file.after(SETTLE * 0.9) or told
    assert told == "is written again and again, and counts once it stands"
    assert file.settled() == b"399\n"


def test_an_empty_file_has_to_stand_longer(file: File) -> None:
    file.save(b"")
    assert file.after(0) is None
    assert file.after(GRACE - 0.01) is None
    assert file.after(0.01) == b""


@pytest.mark.usefixtures("unproven")
def test_without_leases_a_content_has_to_stand_longer(file: File) -> None:
    file.save(b"second and longer\n")
    assert file.after(0) is None
    assert file.after(SETTLE) is None
    assert file.after(SETTLE) == b"second and longer\n"


@pytest.mark.usefixtures("unproven")
def test_without_leases_a_shorter_content_has_to_stand_even_longer(file: File) -> None:
    file.save(b"fir")
    assert file.after(0) is None
    assert file.after(GRACE - 0.01) is None
    assert file.after(0.01) == b"fir"


def test_the_same_content_is_not_told_twice(file: File) -> None:
    os.utime(file.path, (1, 1))
    assert file.settled() is None
    file.path.unlink()
    assert file.after(0) is None
    file.save(b"first\n")
    assert file.settled() is None


def test_a_change_that_hides_from_stat_is_found(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filesystem's timestamps are coarse: same size, same times."""
    hidden = reading.signature(file.path)
    assert hidden is not None
    real = reading.read

    def read(path: Path) -> Whole | Busy | Failed:
        found = real(path)
        return Whole(hidden, found.data, found.digest, found.proven) if isinstance(found, Whole) else found

    monkeypatch.setattr(settling, "read", read)
    monkeypatch.setattr(settling, "signature", lambda path: hidden)
    file.save(b"FIRST\n")
    assert file.settled() is None
    assert file.after(0, thorough=True) is None
    assert file.settled() == b"FIRST\n"


def test_an_unchanged_file_is_not_read(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "read", lambda path: pytest.fail("read"))
    assert file.after(60) is None


def test_what_is_missing_is_told_after_a_grace(file: File) -> None:
    file.path.unlink()
    assert file.after(0) is None
    assert file.after(GRACE - 0.01) is None
    assert file.after(0.01) == "is gone"
    assert file.due is None
    assert file.after(3600) is None
    file.save(b"first\n")
    assert file.settled() == b"first\n"


def test_what_never_was_is_missing(tmp_path: Path) -> None:
    file = File(tmp_path / "banger.yaml")
    assert file.settled() == "is missing"
    assert file.after(60) is None


def test_a_dance_within_the_grace_is_not_told(file: File) -> None:
    for _ in range(5):
        backup = file.path.rename(file.path.with_suffix(".bak"))
        assert file.after(GRACE * 0.9) is None
        backup.rename(file.path)
        assert file.settled() is None


def test_one_problem_after_another(file: File) -> None:
    file.path.unlink()
    file.path.mkdir()
    assert file.after(0) is None
    assert file.after(GRACE) == "is a directory"
    file.path.rmdir()
    assert file.after(1) == "is gone"
    file.path.write_bytes(b"x" * (1 << 20) + b"x")
    assert file.after(0) == "is larger than 1 MiB"
    file.save(b"second\n")
    assert file.settled() == b"second\n"


def test_the_digest_is_of_the_data(file: File) -> None:
    assert file.told == Content(
        file.path, b"first\n", None, "b640e840b19d378660b32fb51ae18d67dccb4a8596a29e7bd72c1b2ae5928f41"
    )
