"""What is read on the host for guests' files: all that is there, nothing from elsewhere, and within bounds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reconciler.drivers.guest import sources
from reconciler.drivers.guest.sources import Kind, digest, gather
from reconciler.lib.errors import BangerError
from reconciler.model.inside import GuestFile, files_fact


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    folder = tmp_path / "dots"
    (folder / ".config/app").mkdir(parents=True)
    (folder / ".gitconfig").write_text("[user]\n")
    (folder / ".gitconfig").chmod(0o600)
    (folder / ".config/app/run").write_text("#!/bin/sh\n")
    (folder / ".config/app/run").chmod(0o4755)
    (folder / "link").symlink_to("/etc/shadow")
    return folder


def test_a_folder_is_all_that_is_in_it_with_links_as_links(dots: Path) -> None:
    gathered = gather([GuestFile(guest="/root", host=str(dots), owner="dev:dev")])
    assert {entry.path: (entry.kind, entry.mode, entry.data) for entry in gathered.entries} == {
        "/root": (Kind.FOLDER, dots.stat().st_mode & 0o777, b""),
        "/root/.config": (Kind.FOLDER, 0o755, b""),
        "/root/.config/app": (Kind.FOLDER, 0o755, b""),
        "/root/.config/app/run": (Kind.FILE, 0o755, b"#!/bin/sh\n"),
        "/root/.gitconfig": (Kind.FILE, 0o600, b"[user]\n"),
        "/root/link": (Kind.LINK, 0o777, b"/etc/shadow"),
    }
    assert {entry.owner for entry in gathered.entries} == {"dev:dev"}


def test_a_mode_is_for_files_only(dots: Path) -> None:
    gathered = gather([GuestFile(guest="/", host=str(dots), mode=0o640)])
    modes = {entry.path: entry.mode for entry in gathered.entries}
    assert modes["/.gitconfig"] == 0o640 and modes["/.config"] == 0o755
    assert "" not in modes and "/" not in modes


def test_a_later_entry_wins(dots: Path) -> None:
    later = GuestFile(guest="/root/.gitconfig", content="mine", mode=0o644)
    found = {entry.path: entry.data for entry in gather([GuestFile(guest="/root", host=str(dots)), later]).entries}
    assert found["/root/.gitconfig"] == b"mine"


def test_the_fact_is_what_the_planner_makes_of_the_digests(dots: Path) -> None:
    files = (GuestFile(guest="/root", host=str(dots)), GuestFile(guest="/etc/motd", content="x"))
    assert gather(files).fact == files_fact(files, {str(dots): digest(str(dots))})
    assert gather(()).fact == ""


@pytest.mark.parametrize(
    "edit",
    [
        lambda dots: (dots / ".gitconfig").write_text("[User]\n"),
        lambda dots: (dots / ".gitconfig").chmod(0o644),
        lambda dots: (dots / "new").mkdir(),
        lambda dots: (dots / ".gitconfig").rename(dots / ".gitconfig2"),
        lambda dots: (dots / "link").unlink(),
    ],
)
def test_every_edit_gives_another_digest(dots: Path, edit: object) -> None:
    before = digest(str(dots))
    assert digest(str(dots)) == before
    edit(dots)  # type: ignore[operator]
    assert digest(str(dots)) != before


def test_a_link_that_the_user_names_is_followed(dots: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(dots)
    (tmp_path / "one").symlink_to(dots / ".gitconfig")
    assert digest(str(tmp_path / "alias")) == digest(str(dots))
    (entry,) = gather([GuestFile(guest="/root/.gitconfig", host=str(tmp_path / "one"))]).entries
    assert (entry.data, entry.mode) == (b"[user]\n", 0o600)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def unix_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "s"))


def line_break(folder: Path) -> None:
    (folder / "a\nb").write_text("")


def no_text(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_text("")


def odd_link(folder: Path) -> None:
    (folder / "odd").symlink_to("a\tb")


@pytest.mark.parametrize("make", [pipe, unix_socket, line_break, no_text, odd_link])
def test_what_no_guest_is_given_is_refused(dots: Path, make: object) -> None:
    make(dots)  # type: ignore[operator]
    with pytest.raises(BangerError) as caught:
        gather([GuestFile(guest="/root", host=str(dots))])
    assert str(dots) in caught.value.cause and caught.value.hint


def test_what_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    for path in ("nowhere", "nowhere/below"):
        with pytest.raises(BangerError, match=rf"cannot read {tmp_path / path} on the host: No such file"):
            digest(str(tmp_path / path))


def test_it_is_bounded(dots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (dots / "huge").open("wb") as file:
        file.truncate(sources.MAX_BYTES + 1)
    with pytest.raises(BangerError, match="too large") as caught:
        gather([GuestFile(guest="/root", host=str(dots))])
    assert "64MiB" in str(caught.value.hint)
    (dots / "huge").unlink()
    monkeypatch.setattr(sources, "MAX_ENTRIES", 6)
    gather([GuestFile(guest="/root", host=str(dots))])
    with pytest.raises(BangerError, match="the files of a guest are 7 of"):
        gather([GuestFile(guest="/root", host=str(dots)), GuestFile(guest="/x", content="x")])
    monkeypatch.setattr(sources, "MAX_ENTRIES", 5)
    with pytest.raises(BangerError, match="more than 5 entries"):
        digest(str(dots))


def test_a_folder_that_holds_itself_by_a_link_ends(dots: Path) -> None:
    (dots / "again").symlink_to(".")
    assert "/root/again/again" not in {e.path for e in gather([GuestFile(guest="/root", host=str(dots))]).entries}


def test_no_file_can_be_below_a_file(dots: Path) -> None:
    files = (GuestFile(guest="/root", host=str(dots)), GuestFile(guest="/root/.gitconfig/x", content="x"))
    with pytest.raises(BangerError, match=r"/root/.gitconfig/x cannot be below /root/.gitconfig"):
        gather(files)


def test_a_folder_cannot_reach_what_belongs_to_the_system(tmp_path: Path) -> None:
    (tmp_path / "d/lib/banger").mkdir(parents=True)
    with pytest.raises(BangerError, match="/var/lib/banger belongs to its system"):
        gather([GuestFile(guest="/var", host=str(tmp_path / "d"))])
