"""What was done in the guest arrives here as it is, in a branch or a patch; a hostile guest gets nothing out of it."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.lib.errors import BangerError
from reconciler.workspace.pull import Pulled, patch, pull
from reconciler.workspace.standing import Standing, look
from tests.workspace.places import Pair, enter


def pulled(pair: Pair, branch: str | None = None) -> Pulled:
    return pull(enter, pair.host.root, str(pair.guest.root), vm="dev", branch=branch)


def test_a_commit_of_the_guest_arrives_with_its_own_id(pair: Pair) -> None:
    pair.push()
    pair.guest.write("c.txt", "guest\n")
    made = pair.guest.commit("in the guest")
    before = pair.host.tree(), pair.host.status, pair.host.head
    done = pulled(pair)
    assert done == Pulled(branch="banger/dev", commit=made, commits=1, changed=True)
    assert pair.host.git("rev-parse", "banger/dev") == made
    assert (pair.host.tree(), pair.host.status, pair.host.head) == before
    pair.host.git("merge", "-q", "--ff-only", "banger/dev")
    assert not pair.push(dry_run=True).commits
    pair.push()
    assert pair.guest.head == pair.host.head == made


def test_a_second_pull_changes_nothing(pair: Pair) -> None:
    pair.push()
    pair.guest.write("c.txt", "guest\n")
    first = pulled(pair)
    second = pulled(pair)
    assert first.changed and not second.changed
    assert second.commit == first.commit
    assert not list((pair.host.root / ".git/objects").glob("tmp_objdir*"))


def test_what_was_not_committed_becomes_one_more_commit(pair: Pair) -> None:
    pair.push()
    pair.guest.commit("empty")
    pair.guest.write("a.txt", "changed\n")
    pair.guest.write("new", "not tracked\n")
    pair.guest.write(".git/info/exclude", "out\n")
    pair.guest.write("out", "ignored\n")
    done = pulled(pair)
    assert done.commits == 1 and done.uncommitted == ("a.txt", "new")
    assert pair.host.git("rev-parse", "banger/dev^") == pair.guest.head
    assert pair.host.git("show", "--format=", "--name-only", "banger/dev").split() == ["a.txt", "new"]


def test_changes_that_came_from_here_are_not_brought_back(pair: Pair) -> None:
    pair.host.write("a.txt", "not committed here\n")
    pair.push()
    assert pulled(pair).branch is None
    pair.guest.write("c.txt")
    pair.guest.git("add", "c.txt")
    pair.guest.git("commit", "-q", "-m", "only c")
    assert pulled(pair).commit == pair.guest.head


def test_nothing_to_bring_makes_no_branch(pair: Pair) -> None:
    pair.push()
    assert pulled(pair).branch is None
    assert pair.host.git("branch", "--list", "banger/*") == ""


def test_a_branch_with_commits_of_somebody_else_stays(pair: Pair) -> None:
    pair.push()
    pair.guest.write("a.txt", "guest\n")
    pulled(pair)
    pair.host.git("switch", "-q", "banger/dev")
    with pytest.raises(BangerError, match="checked out"):
        pair.guest.write("a.txt", "more\n")
        pulled(pair)
    mine = pair.host.commit("mine")
    pair.host.git("switch", "-q", "main")
    with pytest.raises(BangerError, match="has commits that the guest has not"):
        pulled(pair)
    assert pair.host.git("rev-parse", "banger/dev") == mine
    assert pulled(pair, "other").branch == "other"


def test_a_patch_is_what_the_guest_did_and_applies_here(pair: Pair) -> None:
    pair.host.write("sub/b.txt", "changed here\n")
    pair.push()
    pair.guest.write("a.txt", "guest\n")
    (pair.guest.root / "bin").write_bytes(bytes(range(256)))
    (pair.guest.root / "bin").chmod(0o755)
    before = set((pair.host.root / ".git").rglob("*"))
    text = patch(enter, pair.host.root, str(pair.guest.root))
    assert set((pair.host.root / ".git").rglob("*")) == before
    assert b"changed here" not in text
    subprocess.run(["git", "apply"], cwd=pair.host.root, input=text, check=True)
    assert pair.host.tree() == pair.guest.tree()
    pair.guest.git("checkout", "-q", "a.txt")
    (pair.guest.root / "bin").unlink()
    assert patch(enter, pair.host.root, str(pair.guest.root)) == b""


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "x.lock", ""])
def test_a_branch_name_is_checked(pair: Pair, name: str) -> None:
    pair.push()
    pair.guest.commit()
    if not name:
        return
    with pytest.raises(BangerError, match="cannot be the name"):
        pulled(pair, name)


def tree_with(pair: Pair, path: str, mode: str = "100644") -> str:
    """A tree that git itself would not make."""
    blob = pair.guest.git("hash-object", "-w", "--stdin", input="evil\n")
    raw = subprocess.run(
        ["git", "-C", pair.guest.root, "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        input=f"{mode} {path}\0".encode() + bytes.fromhex(blob),
        capture_output=True,
        check=True,
    )
    return raw.stdout.decode().strip()


@pytest.mark.parametrize("path", [".git", "..", ".GIT", "a/b", "git~1"])
def test_a_tree_that_leads_out_of_itself_is_refused(pair: Pair, path: str) -> None:
    pair.push()
    commit = pair.guest.git("commit-tree", "-p", "HEAD", "-m", "evil", tree_with(pair, path))
    pair.guest.git("update-ref", "refs/heads/main", commit)
    pair.guest.git("read-tree", "HEAD^")
    refs = pair.host.git("for-each-ref")
    with pytest.raises(BangerError, match="refused"):
        pulled(pair)
    assert pair.host.git("for-each-ref") == refs
    assert pair.host.git("cat-file", "-t", commit, check=False) == ""


def test_hooks_and_settings_of_the_guest_do_not_run_here(pair: Pair, tmp_path: Path) -> None:
    pair.push()
    trap = tmp_path / "trap"
    script = tmp_path / "run"
    script.write_text(f"#!/bin/sh\ntouch '{trap}'\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    pair.guest.write(".gitattributes", "* diff=evil filter=evil merge=evil\n")
    pair.guest.commit()
    for hook in ("reference-transaction", "post-checkout", "update", "post-update"):
        (pair.host.root / ".git/hooks" / hook).write_text(script.read_text())
        (pair.host.root / ".git/hooks" / hook).chmod(0o755)
    for key in ("diff.evil.textconv", "diff.evil.command", "filter.evil.smudge", "core.fsmonitor", "diff.external"):
        pair.host.git("config", key, str(script))
    pulled(pair)
    patch(enter, pair.host.root, str(pair.guest.root))
    assert not trap.exists()


def liar(*lines: str, tail: str = "") -> object:
    """A guest that says what it likes."""
    words = "\\n".join(lines)

    def lie(words_: Sequence[str]) -> list[str]:
        return ["sh", "-c", f"printf '{words}\\n'; {tail or ':'}"]

    return lie


FACTS = ("banger-workspace 1", "git x", "state repository", "head -", "branch -", "end")


@pytest.mark.parametrize(
    "guest",
    [
        liar(),
        liar("banger-workspace 1"),
        liar("banger-workspace 1", "end"),
        liar("banger-workspace 1", "git x", "state wrong", "end"),
        liar(*FACTS, "snapshot --upload-pack=x - - -", "pack"),
        liar(*FACTS, f"snapshot {'a' * 40} - {'b' * 40} -", "pack", "garbage"),
        liar(*FACTS, "error something"),
        liar(tail="yes x"),
        liar(tail="cat /dev/zero"),
        liar(*FACTS, tail="exec 1>&-; sleep 0.1"),
    ],
)
def test_a_guest_that_lies_is_refused_in_bounded_time(pair: Pair, guest: object) -> None:
    with pytest.raises(BangerError):
        pull(guest, pair.host.root, "/x", vm="dev")  # type: ignore[arg-type]
    assert pair.host.git("branch", "--list", "banger/*") == ""


def test_the_standing_of_both_sides(pair: Pair) -> None:
    def standing() -> Standing:
        return look(enter, pair.request()).standing

    assert standing() is Standing.ABSENT
    pair.push()
    assert standing() is Standing.SAME
    pair.host.write("a.txt", "host\n")
    assert standing() is Standing.STALE
    pair.guest.write("sub/b.txt", "guest\n")
    assert standing() is Standing.DIVERGED
    pair.host.write("a.txt", "one\n")
    report = look(enter, pair.request())
    assert report.standing is Standing.AHEAD
    assert report.guest is not None and report.guest.changes == 1 and report.host.changes == 0
    pair.guest.commit()
    assert look(enter, pair.request()).guest.commits == 1  # type: ignore[union-attr]
    pair.guest.write(".git/MERGE_HEAD", pair.guest.head + "\n")
    assert standing() is Standing.BLOCKED
