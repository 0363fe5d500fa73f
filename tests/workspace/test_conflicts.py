"""What was done in the guest is never overwritten: each scenario is refused, says what differs, and leaves all as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.lib.errors import BangerError
from reconciler.workspace.compare import UnpushedWorkError
from tests.workspace.places import Pair, Place

Scenario = Callable[[Pair], None]


def host_edits(pair: Pair) -> None:
    pair.host.write("a.txt", "host\n")


def guest_edits_the_same_file(pair: Pair) -> None:
    pair.guest.write("a.txt", "guest\n")


def guest_edits_another_file(pair: Pair) -> None:
    pair.guest.write("sub/b.txt", "guest\n")


def guest_deletes_a_file(pair: Pair) -> None:
    (pair.guest.root / "sub/b.txt").unlink()


def guest_makes_a_file_executable(pair: Pair) -> None:
    (pair.guest.root / "sub/b.txt").chmod(0o755)


def guest_turns_a_file_into_a_link(pair: Pair) -> None:
    (pair.guest.root / "sub/b.txt").unlink()
    (pair.guest.root / "sub/b.txt").symlink_to("../a.txt")


def guest_turns_a_file_into_a_folder(pair: Pair) -> None:
    (pair.guest.root / "a.txt").unlink()
    pair.guest.write("a.txt/inside")
    pair.guest.git("add", "a.txt/inside")


def guest_stages_a_new_file(pair: Pair) -> None:
    pair.guest.write("new")
    pair.guest.git("add", "new")


def guest_stages_and_changes_back(pair: Pair) -> None:
    pair.guest.write("sub/b.txt", "staged\n")
    pair.guest.git("add", "sub/b.txt")
    pair.guest.write("sub/b.txt", "two\n")


def guest_commits(pair: Pair) -> None:
    pair.guest.write("c.txt")
    pair.guest.commit("in the guest")


def guest_commits_nothing(pair: Pair) -> None:
    pair.guest.commit("empty")


def guest_amends(pair: Pair) -> None:
    pair.guest.git("commit", "-q", "--amend", "-m", "amended in the guest")


def guest_commits_on_a_branch_of_its_own(pair: Pair) -> None:
    pair.guest.git("switch", "-q", "-c", "mine")
    pair.guest.commit("on mine")


def guest_has_commits_on_the_branch_that_comes(pair: Pair) -> None:
    pair.guest.git("switch", "-q", "-c", "topic")
    pair.guest.commit("on topic")
    pair.guest.git("switch", "-q", "main")
    pair.host.git("switch", "-q", "-c", "topic")


def guest_is_in_the_middle_of_a_merge(pair: Pair) -> None:
    pair.guest.git("switch", "-q", "-c", "other")
    pair.guest.write("a.txt", "other\n")
    pair.guest.commit()
    pair.guest.git("switch", "-q", "main")
    pair.guest.git("merge", "-q", "--no-commit", "--no-ff", "other")


def guest_is_in_the_middle_of_a_rebase(pair: Pair) -> None:
    pair.guest.write("a.txt", "one of them\n")
    pair.guest.commit()
    pair.guest.git("switch", "-q", "-c", "other", "HEAD^")
    pair.guest.write("a.txt", "another\n")
    pair.guest.commit()
    pair.guest.git("rebase", "main", check=False)


def guest_has_conflicts(pair: Pair) -> None:
    pair.guest.write("a.txt", "stashed\n")
    pair.guest.git("stash", "-q")
    pair.guest.write("a.txt", "committed\n")
    pair.guest.commit()
    pair.guest.git("stash", "pop", check=False)


def another_git_runs_in_the_guest(pair: Pair) -> None:
    pair.guest.write(".git/index.lock", "")


def an_untracked_file_of_the_guest_lies_in_the_way(pair: Pair) -> None:
    pair.guest.write("new", "guest\n")
    pair.host.write("new", "host\n")
    pair.host.git("add", "new")


def an_ignored_file_of_the_guest_lies_in_the_way(pair: Pair) -> None:
    pair.guest.write(".git/info/exclude", "new\n")
    pair.guest.write("new", "guest\n")
    pair.host.write("new", "host\n")
    pair.host.git("add", "new")


def a_folder_of_the_guest_lies_in_the_way(pair: Pair) -> None:
    pair.guest.write("new/inside", "guest\n")
    pair.host.write("new", "host\n")
    pair.host.git("add", "new")


def a_file_of_the_guest_lies_where_a_folder_is_to_be(pair: Pair) -> None:
    pair.guest.write("new", "guest\n")
    pair.host.write("new/inside", "host\n")
    pair.host.git("add", "new")


def guest_and_host_make_different_commits(pair: Pair) -> None:
    pair.guest.write("c.txt", "guest\n")
    pair.guest.commit()
    pair.host.write("c.txt", "host\n")
    pair.host.commit()


SCENARIOS: dict[Scenario, str] = {
    guest_edits_the_same_file: "changed a.txt",
    guest_edits_another_file: "changed sub/b.txt",
    guest_deletes_a_file: "deleted sub/b.txt",
    guest_makes_a_file_executable: "changed sub/b.txt",
    guest_turns_a_file_into_a_link: "changed sub/b.txt",
    guest_turns_a_file_into_a_folder: "added a.txt/inside",
    guest_stages_a_new_file: "added new",
    guest_stages_and_changes_back: "staged, and changed again since: sub/b.txt",
    guest_commits: "1 commit.s. on main",
    guest_commits_nothing: "1 commit.s. on main",
    guest_amends: "commit.s. on main",
    guest_commits_on_a_branch_of_its_own: "1 commit.s. on mine",
    guest_has_commits_on_the_branch_that_comes: "branch topic has commits",
    guest_is_in_the_middle_of_a_merge: "a merge is under way",
    guest_is_in_the_middle_of_a_rebase: "a rebase is under way",
    guest_has_conflicts: "conflicts",
    another_git_runs_in_the_guest: "another git command",
    an_untracked_file_of_the_guest_lies_in_the_way: "untracked new",
    an_ignored_file_of_the_guest_lies_in_the_way: "untracked new",
    a_folder_of_the_guest_lies_in_the_way: "untracked new",
    a_file_of_the_guest_lies_where_a_folder_is_to_be: "new",
    guest_and_host_make_different_commits: "1 commit.s. on main",
}
UNFORCED = (
    guest_is_in_the_middle_of_a_merge,
    guest_is_in_the_middle_of_a_rebase,
    guest_has_conflicts,
    another_git_runs_in_the_guest,
    a_folder_of_the_guest_lies_in_the_way,
    a_file_of_the_guest_lies_where_a_folder_is_to_be,
    guest_turns_a_file_into_a_folder,
)


def state_of(place: Place) -> tuple[object, ...]:
    return (
        place.tree(),
        place.git("rev-parse", "HEAD"),
        place.git("status", "--porcelain=v2", "--branch"),
        place.git("ls-files", "--stage"),
        place.git("for-each-ref", "refs/heads", "refs/stash"),
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_work_of_the_guest_is_never_overwritten(pair: Pair, scenario: Scenario) -> None:
    pair.push()
    scenario(pair)
    host_edits(pair)
    before = state_of(pair.guest)
    with pytest.raises(BangerError, match=SCENARIOS[scenario]) as error:
        pair.push()
    assert state_of(pair.guest) == before
    assert error.value.hint
    # And again: a refusal leaves nothing behind that the next push would take for its own.
    with pytest.raises(BangerError, match=SCENARIOS[scenario]):
        pair.push()
    assert state_of(pair.guest) == before


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s not in UNFORCED], ids=lambda scenario: scenario.__name__
)
def test_force_replaces_it_and_keeps_it_as_a_commit(pair: Pair, scenario: Scenario) -> None:
    pair.push()
    scenario(pair)
    host_edits(pair)
    files, head = pair.guest.git("stash", "create"), pair.guest.head
    done = pair.push(force=True)
    assert pair.guest.read("a.txt") == "host\n"
    assert pair.guest.git("symbolic-ref", "HEAD") == pair.host.git("symbolic-ref", "HEAD")
    if scenario in (guest_stages_and_changes_back, guest_has_commits_on_the_branch_that_comes):
        return  # the files were as shipped
    kept = pair.guest.git("for-each-ref", "--format=%(refname)", "refs/banger/replaced").split()
    assert len(kept) == 1 and any("kept in the guest" in note for note in done.notes)
    assert pair.guest.git("rev-parse", f"{kept[0]}^") == head
    if files:
        assert pair.guest.git("diff", files, kept[0], "--", "a.txt", "sub") == ""


@pytest.mark.parametrize("scenario", UNFORCED[:4], ids=lambda scenario: scenario.__name__)
def test_what_is_unfinished_cannot_be_forced(pair: Pair, scenario: Scenario) -> None:
    pair.push()
    scenario(pair)
    host_edits(pair)
    before = state_of(pair.guest)
    with pytest.raises(BangerError):
        pair.push(force=True)
    assert state_of(pair.guest) == before


def test_what_both_sides_did_alike_is_no_conflict(pair: Pair) -> None:
    pair.push()
    for place in (pair.host, pair.guest):
        place.write("a.txt", "the same\n")
        place.write("new", "the same\n")
    pair.host.git("add", "new")
    pair.push()
    assert pair.guest.tree() == pair.host.tree()


def test_files_that_the_guest_made_beside_stay(pair: Pair) -> None:
    pair.push()
    pair.guest.write("build/out.o")
    host_edits(pair)
    pair.push()
    assert pair.guest.read("build/out.o") == "x\n"
    assert pair.guest.read("a.txt") == "host\n"


def test_a_commit_of_the_guest_that_the_host_has_is_no_conflict(pair: Pair) -> None:
    pair.push()
    guest_commits(pair)
    pair.host.git("pull", "-q", str(pair.guest.root), "main")
    host_edits(pair)
    pair.push()
    assert pair.guest.head == pair.host.head
    assert pair.guest.read("a.txt") == "host\n"


def test_a_folder_with_other_things_in_it_is_refused(pair: Pair) -> None:
    pair.guest.write("mine")
    with pytest.raises(BangerError, match="other things"):
        pair.push()
    assert pair.guest.tree() == {"mine": ("file", b"x\n".hex())}


def test_a_clone_that_was_there_before_is_taken_over_if_it_is_clean(pair: Pair) -> None:
    pair.guest.root.parent.mkdir()
    subprocess.run(["git", "clone", "-q", pair.host.root, pair.guest.root], check=True)
    pair.host.write("a.txt", "host\n")
    pair.host.commit()
    pair.push()
    assert pair.guest.head == pair.host.head
    assert pair.guest.status == []


def test_a_dirty_clone_that_was_there_before_is_not(pair: Pair) -> None:
    pair.guest.root.parent.mkdir()
    subprocess.run(["git", "clone", "-q", pair.host.root, pair.guest.root], check=True)
    pair.guest.write("a.txt", "guest\n")
    host_edits(pair)
    with pytest.raises(UnpushedWorkError):
        pair.push()
    assert pair.guest.read("a.txt") == "guest\n"


def test_a_submodule_in_the_way_keeps_everything_as_it_is(pair: Pair, tmp_path: Path) -> None:
    inner = Place(tmp_path / "inner")
    inner.root.mkdir()
    inner.git("init", "-q", "-b", "main")
    inner.write("in.txt", "in\n")
    inner.commit()
    pair.host.git("submodule", "-q", "add", str(inner.root), "inner")
    pair.host.commit()
    pair.push()
    pair.guest.write("inner/in.txt", "guest\n")
    pair.host.write("inner/in.txt", "host\n")
    host_edits(pair)
    with pytest.raises(UnpushedWorkError):
        pair.push()
    assert pair.guest.read("a.txt") == "one\n"
    assert pair.guest.read("inner/in.txt") == "guest\n"
