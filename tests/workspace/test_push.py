"""What is on the host arrives in the guest, as it is, and only what has changed is sent."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler import workspace
from reconciler.lib.errors import BangerError
from reconciler.workspace.push import push
from reconciler.workspace.standing import behind
from tests.workspace.places import Pair, Place, enter


def same(pair: Pair) -> None:
    assert pair.guest.tree() == pair.host.tree()
    assert pair.guest.head == pair.host.head
    assert pair.guest.status == pair.host.status
    assert pair.guest.git("symbolic-ref", "-q", "HEAD", check=False) == pair.host.git(
        "symbolic-ref", "-q", "HEAD", check=False
    )
    assert pair.guest.git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_the_first_push_brings_history_branch_and_files(pair: Pair) -> None:
    done = pair.push()
    assert done.sent and done.first and done.commits is None
    same(pair)
    assert pair.guest.git("log", "--format=%s") == "first"


def test_nothing_of_the_host_is_written_by_a_push(pair: Pair) -> None:
    pair.host.write("a.txt", "changed\n")

    def look() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in pair.host.root.rglob("*") if path.is_file()}

    before = look()
    pair.push()
    assert look() == before


def test_staged_unstaged_deleted_modes_and_links_arrive_as_they_are(pair: Pair) -> None:
    for name in ("gone", "gone-staged", "both", "run", "kind"):
        pair.host.write(name, f"{name}\n")
    pair.host.write('ünïcode \t"name"', "odd\n")
    pair.host.commit()
    (pair.host.root / "gone").unlink()
    pair.host.git("rm", "-q", "gone-staged")
    pair.host.write("both", "staged\n")
    pair.host.git("add", "both")
    pair.host.write("both", "and changed again\n")
    pair.host.write("new", "staged and new\n")
    pair.host.git("add", "new")
    (pair.host.root / "run").chmod(0o755)
    (pair.host.root / "kind").unlink()
    (pair.host.root / "kind").symlink_to("a.txt")
    (pair.host.root / 'ünïcode \t"name"').write_text("odder\n")
    done = pair.push()
    same(pair)
    assert pair.guest.git("show", ":both") == "staged"
    assert done.changes["gone"] == "D" and done.changes["kind"] == "T"


def test_a_second_push_sends_nothing_and_a_changed_one_only_that(pair: Pair) -> None:
    pair.push()
    assert not pair.push().sent
    pair.host.write("a.txt", "changed\n")
    assert pair.push().sent
    same(pair)
    assert not pair.push().sent
    pair.host.commit("second")
    done = pair.push()
    assert done.sent and done.commits == 1
    same(pair)


def test_a_copy_is_behind_once_something_has_changed_here(pair: Pair) -> None:
    assert not behind(enter, pair.request()), "nothing was shipped yet: that is another matter"
    pair.push()
    assert not behind(enter, pair.request())
    pair.guest.write("a.txt", "the guest's own\n")
    assert not behind(enter, pair.request())
    pair.host.write("a.txt", "new\n")
    assert behind(enter, pair.request())


def test_untracked_files_are_shipped_on_request_and_ignored_ones_never(pair: Pair) -> None:
    pair.host.write(".gitignore", "secret\n")
    pair.host.commit()
    pair.host.write("secret", "s\n")
    pair.host.write("note", "n\n")
    pair.push()
    assert set(pair.guest.tree()) == {".gitignore", "a.txt", "sub/b.txt"}
    pair.push(untracked=True)
    assert pair.guest.read("note") == "n\n"
    assert not (pair.guest.root / "secret").exists()
    assert pair.guest.status == ["?? note"]
    pair.host.write("note", "changed\n")
    assert pair.push(untracked=True).sent
    assert pair.guest.read("note") == "changed\n"
    (pair.host.root / "note").unlink()
    pair.push(untracked=True)
    assert not (pair.guest.root / "note").exists()


def test_a_branch_that_is_switched_to_is_switched_to_there(pair: Pair) -> None:
    pair.push()
    pair.host.git("switch", "-q", "-c", "topic")
    pair.host.write("c.txt")
    pair.host.commit()
    pair.push()
    same(pair)
    assert pair.guest.git("branch", "--show-current") == "topic"
    pair.host.git("switch", "-q", "--detach", "main")
    pair.push()
    same(pair)
    assert pair.guest.git("branch", "--show-current") == ""


def test_a_rewritten_history_is_followed(pair: Pair) -> None:
    pair.host.write("a.txt", "second\n")
    pair.host.commit("second")
    pair.push()
    pair.host.git("commit", "-q", "--amend", "-m", "amended")
    pair.push()
    same(pair)


def test_tags_of_the_history_come_along(pair: Pair) -> None:
    pair.host.git("tag", "-a", "-m", "v1", "v1")
    pair.host.git("tag", "light")
    pair.push()
    assert pair.guest.git("describe", "HEAD") == "v1"
    assert pair.guest.git("tag") == "light\nv1"


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    host = Place(tmp_path / "h")
    host.root.mkdir()
    host.git("init", "-q", "-b", "main")
    host.write("a")
    host.git("add", "a")
    both = Pair(host, Place(tmp_path / "g"))
    both.push()
    assert both.guest.status == ["A  a"]
    host.commit()
    both.push()
    same(both)


def test_submodules_arrive_with_their_changes(pair: Pair, tmp_path: Path) -> None:
    inner = Place(tmp_path / "inner")
    inner.root.mkdir()
    inner.git("init", "-q", "-b", "main")
    inner.write("in.txt", "in\n")
    inner.commit()
    pair.host.git("submodule", "-q", "add", str(inner.root), "lib/inner")
    pair.host.commit()
    pair.host.write("lib/inner/in.txt", "changed\n")
    done = pair.push()
    assert set(done.parts) == {"lib/inner"}
    assert pair.guest.tree() == pair.host.tree()
    assert (
        pair.guest.git("submodule", "status").split()[0].strip("-") == pair.host.git("submodule", "status").split()[0]
    )
    assert not pair.push().anything
    pair.host.write("lib/inner/in.txt", "again\n")
    assert pair.push().anything
    assert pair.guest.read("lib/inner/in.txt") == "again\n"
    moved = Place(pair.host.root / "lib/inner")
    moved.commit("moved")
    pair.push()
    assert Place(pair.guest.root / "lib/inner").head == moved.head


def test_a_shallow_clone_stays_one(pair: Pair, tmp_path: Path) -> None:
    for _ in range(3):
        pair.host.commit()
    shallow = Place(tmp_path / "shallow")
    pair.host.git("clone", "-q", "--depth", "2", f"file://{pair.host.root}", str(shallow.root))
    both = Pair(shallow, pair.guest)
    both.push()
    same(both)
    assert both.guest.git("rev-list", "--count", "HEAD") == "2"
    shallow.commit()
    both.push()
    same(both)


def test_conflicts_arrive_with_their_marks(pair: Pair) -> None:
    pair.host.git("switch", "-q", "-c", "other")
    pair.host.write("a.txt", "theirs\n")
    pair.host.commit()
    pair.host.git("switch", "-q", "main")
    pair.host.write("a.txt", "ours\n")
    pair.host.commit()
    pair.host.git("merge", "other", check=False)
    done = pair.push()
    assert "<<<<<<<" in pair.guest.read("a.txt")
    assert any("conflicts" in note for note in done.notes)


def test_a_mount_point_is_filled_in_place(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair.guest.root / "lost+found").mkdir(parents=True)
    pair.push()
    assert pair.guest.read("a.txt") == "one\n"
    assert (pair.guest.root / "lost+found").is_dir()


def test_hooks_filters_and_monitors_of_the_host_do_not_run(pair: Pair, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    script = tmp_path / "run"
    script.write_text(f"#!/bin/sh\ntouch '{trap}'\ncat\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    pair.host.write(".gitattributes", "*.txt filter=evil diff=evil\n")
    pair.host.commit()
    for key in (
        "filter.evil.clean",
        "filter.evil.process",
        "filter.evil.smudge",
        "core.fsmonitor",
        "diff.evil.command",
        "diff.external",
    ):
        pair.host.git("config", key, str(script))
    pair.host.git("config", "filter.evil.required", "true")
    for hook in ("pre-push", "post-index-change", "reference-transaction", "pre-commit", "post-checkout"):
        (pair.host.root / ".git/hooks" / hook).write_text(script.read_text())
        (pair.host.root / ".git/hooks" / hook).chmod(0o755)
    pair.host.write("a.txt", "changed\n")
    pair.push()
    assert pair.guest.read("a.txt") == "changed\n"
    assert not trap.exists()


def test_variables_of_a_calling_git_lead_nowhere(pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    pair.push()
    monkeypatch.undo()
    same(pair)


def test_a_dry_run_changes_nothing(pair: Pair) -> None:
    pair.host.write("a.txt", "changed\n")
    done = pair.push(dry_run=True)
    assert done.sent and done.changes == {"a.txt": "M"}
    assert not pair.guest.root.exists()


@pytest.mark.parametrize("what", ["nothing", "file", "plain", "bare", "inside"])
def test_what_is_no_repository_is_named(pair: Pair, tmp_path: Path, what: str) -> None:
    words = {
        "nothing": "does not exist",
        "file": "is not a folder",
        "plain": "not a git repository",
        "bare": "bare",
        "inside": "inside of the repository",
    }
    place = tmp_path / what
    if what == "file":
        place.write_text("")
    elif what == "inside":
        place = pair.host.root / "sub"
    elif what != "nothing":
        place.mkdir()
    if what == "bare":
        Place(place).git("init", "-q", "--bare")
    with pytest.raises(BangerError, match=words[what]) as error:
        Pair(Place(place), pair.guest).push()
    assert error.value.hint
    assert not os.path.lexists(pair.guest.root)


def test_a_guest_without_git_gets_the_first_copy_whole(pair: Pair, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "ls", "grep", "mkdir", "rm", "rmdir", "mv", "tar", "flock", "head", "tail", "cat"):
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")

    def bare(words: Sequence[str]) -> list[str]:
        return ["env", "-i", f"PATH={tools}", *words]

    pair.host.write("a.txt", "changed\n")
    done = push(bare, pair.request())
    assert done.sent and any("no git" in note for note in done.notes)
    same(pair)
    assert not push(bare, pair.request()).sent
    pair.host.write("a.txt", "changed again\n")
    with pytest.raises(BangerError, match="the guest has no git"):
        push(bare, pair.request())
    assert pair.guest.read("a.txt") == "changed\n"
    pair.push()  # once it has
    same(pair)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_is_plain_posix_shell() -> None:
    script = Path(workspace.__file__).with_name("guest.sh")
    subprocess.run(["shellcheck", "-s", "dash", str(script)], check=True)
