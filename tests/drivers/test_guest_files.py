"""Files in a guest: what files.sh makes of a folder that takes the guest's place, seen from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.drivers.guest import bundle
from reconciler.drivers.guest.sources import Entry, Kind
from reconciler.lib.errors import BangerError
from tests.fakes.guestroot import Root, root_fixture

__all__ = ["root_fixture"]


def file(path: str, text: str = "ours\n", mode: int = 0o644, owner: str = "root:root") -> Entry:
    return Entry(path=path, kind=Kind.FILE, mode=mode, owner=owner, data=text.encode())


def link(path: str, target: str) -> Entry:
    return Entry(path=path, kind=Kind.LINK, mode=0o777, owner="root:root", data=target.encode())


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path=path, kind=Kind.FOLDER, mode=mode, owner="root:root")


def test_files_links_and_folders_are_there_with_their_modes(root: Root) -> None:
    assert (
        root.write(
            file("/etc/motd", "hello\n"),
            file('/root/it\'s a \\ "file" $(x) ü', "", 0o600),
            folder("/srv/empty", 0o700),
            file("/srv/bin/run", "#!/bin/sh\n", 0o755),
            link("/srv/link", "bin/run"),
        )
        == ()
    )
    assert root.path("/etc/motd").read_text() == "hello\n"
    assert root.path('/root/it\'s a \\ "file" $(x) ü').read_bytes() == b""
    modes = {name: root.path(name).stat().st_mode & 0o7777 for name in root.tree()}
    assert modes == {
        "etc/motd": 0o644,
        'root/it\'s a \\ "file" $(x) ü': 0o600,
        "srv": 0o755,
        "srv/bin": 0o755,
        "srv/bin/run": 0o755,
        "srv/empty": 0o700,
        "srv/link": 0o755,
    }
    assert os.readlink(root.path("/srv/link")) == "bin/run"


def test_what_leaves_takes_its_folders_along_and_gives_back_what_was_there(root: Root) -> None:
    root.path("/etc/motd").write_text("Debian\n")
    root.path("/etc/motd").chmod(0o640)
    root.path("/etc/issue").symlink_to("motd")
    root.write(file("/etc/motd"), file("/etc/issue"), file("/opt/a/b/c"), folder("/opt/a/empty"))
    assert not root.path("/etc/issue").is_symlink()
    root.path("/opt/a/theirs").write_text("theirs")
    assert root.write() == ()
    assert root.path("/etc/motd").read_text() == "Debian\n"
    assert root.path("/etc/motd").stat().st_mode & 0o777 == 0o640
    assert os.readlink(root.path("/etc/issue")) == "motd"
    assert root.tree() == ["etc/issue", "etc/motd", "opt", "opt/a", "opt/a/theirs"]
    assert not list((root.state / "records").iterdir()) and not list((root.state / "originals").iterdir())


def test_a_second_run_touches_nothing(root: Root) -> None:
    entries = [file("/etc/motd"), link("/etc/l", "motd"), folder("/srv/x")]
    root.write(*entries)
    before = {path: path.lstat().st_ctime_ns for path in root.folder.rglob("*") if "banger" not in path.parts}
    root.write(*entries)
    assert {path: path.lstat().st_ctime_ns for path in before} == before


def test_what_the_guest_changed_stays_until_the_entry_changes_and_is_kept_then(root: Root) -> None:
    root.write(file("/etc/motd", "one\n"))
    root.path("/etc/motd").write_text("the guest's\n")
    assert root.write(file("/etc/motd", "one\n")) == ()
    assert root.path("/etc/motd").read_text() == "the guest's\n"
    (told,) = root.write(file("/etc/motd", "two\n"))
    assert told.startswith("/etc/motd: it was changed in the guest, and replaced; what it was is /var/lib/banger/")
    assert root.path(told.rpartition(" ")[2]).read_text() == "the guest's\n"
    assert root.path("/etc/motd").read_text() == "two\n"


def test_what_the_guest_changed_is_not_removed(root: Root) -> None:
    root.path("/etc/motd").write_text("Debian\n")
    root.write(file("/etc/motd"), file("/etc/new"))
    root.path("/etc/motd").write_text("the guest's\n")
    root.path("/etc/new").write_text("the guest's too\n")
    told = sorted(root.write())
    assert [line.partition(":")[0] for line in told] == ["/etc/motd", "/etc/new"]
    assert root.path("/etc/motd").read_text() == "the guest's\n"
    assert root.path("/etc/new").read_text() == "the guest's too\n"
    assert root.path(told[0].rpartition(" ")[2]).read_text() == "Debian\n"
    assert root.write() == ()


def test_what_the_guest_removed_is_no_matter(root: Root) -> None:
    root.write(file("/etc/motd"), file("/etc/new"))
    root.path("/etc/motd").unlink()
    assert root.write(file("/etc/motd", "two\n")) == ()
    assert root.tree() == ["etc/motd"]


def test_mode_alone_is_a_change(root: Root) -> None:
    root.write(file("/etc/motd"))
    root.write(file("/etc/motd", mode=0o600))
    assert root.path("/etc/motd").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of one user has no others")
def test_owners_are_those_of_the_guest_and_get_missing_folders_too(root: Root) -> None:
    root.path("/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\ndev:x:1234:77::/:/bin/sh\n")
    root.path("/etc/group").write_text("root:x:0:\nstaff:x:50:\n")
    root.write(file("/home/dev/.config/app", mode=0o4755, owner="dev:staff"), file("/srv/x", owner="7:8"))
    owners = {name: (root.path(name).stat().st_uid, root.path(name).stat().st_gid) for name in root.tree()}
    assert owners == {
        "home": (1234, 50),
        "home/dev": (1234, 50),
        "home/dev/.config": (1234, 50),
        "home/dev/.config/app": (1234, 50),
        "srv": (7, 8),
        "srv/x": (7, 8),
    }
    assert root.path("/home/dev/.config/app").stat().st_mode & 0o7777 == 0o4755


def test_all_others_are_written_when_one_cannot_be(root: Root) -> None:
    root.path("/etc/motd").mkdir()
    root.path("/etc/f").write_text("")
    with pytest.raises(
        BangerError, match=r"/etc/f/below: .*; /etc/motd: a folder is there; /etc/x: .* nobody-here:x and 1 more"
    ):
        root.write(
            file("/etc/motd"),
            file("/etc/x", owner="nobody-here:x"),
            file("/etc/y", owner="nobody:y"),
            file("/etc/f/below"),
            file("/etc/good"),
        )
    assert root.path("/etc/good").exists()
    assert root.tree() == ["etc/f", "etc/good", "etc/motd"]
    with pytest.raises(BangerError, match="/etc/motd: a folder is there"):
        root.write(file("/etc/motd"), file("/etc/good"))


def test_no_link_leads_out_of_the_root(root: Root, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root.path("/srv").symlink_to(outside)
    root.path("/etc/up").symlink_to("../../../../../../../../../../" + str(outside).lstrip("/"))
    with pytest.raises(BangerError, match="its folder cannot be made"):
        root.write(file("/srv/x"), file("/etc/up/y"))
    assert not list(outside.iterdir())


def test_the_memory_of_another_machine_does_not_count(root: Root) -> None:
    root.write(file("/etc/motd"))
    (root.folder / "run/banger/etc/machine-id").write_text("f" * 32 + "\n")
    assert root.write() == ()
    assert root.path("/etc/motd").read_text() == "ours\n"


@pytest.mark.parametrize("calls", range(1, 40))
def test_killed_at_any_program_it_goes_on(root: Root, calls: int) -> None:
    """busybox stands in for a shell that is killed when it calls its nth program."""
    root.path("/etc/motd").write_text("Debian\n")
    real = root.path("/run/banger/busybox").rename(root.path("/run/banger/real"))
    wrapper = root.path("/run/banger/busybox")
    wrapper.write_text(
        "#!/run/banger/real sh\n"
        'if [ "$1" != sh ]; then\n'
        "    n=$(($(/run/banger/real cat /tmp/n) + 1))\n"
        "    echo $n >/tmp/n\n"
        f"    [ $n -lt {calls} ] || kill -9 $PPID $$\n"
        "fi\n"
        'exec /run/banger/real "$@"\n'
    )
    wrapper.chmod(0o755)
    for wanted in ([file("/etc/motd", "one\n"), file("/srv/x")], [file("/etc/motd", "two\n")], []):
        root.path("/tmp/n").write_text("0\n")
        root.run(["/run/banger/busybox", "sh", "/run/banger/files.sh"], input=bundle.archive(wanted))
    wrapper.unlink()
    real.rename(wrapper)
    root.write(file("/etc/motd", "three\n"))
    assert root.path("/etc/motd").read_text() == "three\n"
    told = root.write()
    assert root.path("/etc/motd").read_text() == "Debian\n", told
    assert [name for name in root.tree() if ".banger" in name] == []
