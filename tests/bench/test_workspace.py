"""A push against what one would type: git bundle, a copy, git clone. Both through a shell of this machine, so that what is
compared is the work, and not a guest's speed."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.conftest import Measurement, Record
from tests.workspace.places import Pair, Place

pytestmark = pytest.mark.bench

FILES = 50_000
ROUNDS = 3


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """50,000 files of some 600 bytes, in 500 folders and 20 commits, packed as a clone is."""
    made = Place(tmp_path_factory.mktemp("bench") / "host")
    made.root.mkdir()
    made.git("init", "-q", "-b", "main")
    made.git("fast-import", "--quiet", input="".join(_history()))
    made.git("reset", "-q", "--hard")
    made.git("gc", "-q")
    made.write("000/00000.py", "changed\n")
    return made


def _history() -> Iterator[str]:
    """For git fast-import, which is spared 50,000 files."""
    yield "reset refs/heads/main\n"
    for part in range(20):
        yield f"commit refs/heads/main\ncommitter A <a@example.org> {1_000_000 + part} +0000\ndata 4\npart\n"
        for number in range(part, FILES, 20):
            text = f"# {number}\n" + f"value_{number} = {number * 7919}\n" * 20
            yield f"M 100644 inline {number % 500:03}/{number:05}.py\ndata {len(text)}\n{text}\n"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_hand(host: Path, guest: Path) -> None:
    """History by a bundle, then what is changed and not committed, as a patch."""
    guest.mkdir()
    script = """
    cd "$1" && git bundle create -q "$2/out" HEAD main
    cat "$2/out" | sh -c 'cat >"$1/in" && git clone -q -b main "$1/in" "$1/repo"' sh "$2"
    git diff --binary HEAD | sh -c 'cd "$1/repo" && git apply' sh "$2"
    """
    subprocess.run(["sh", "-euc", script, "sh", host, guest], check=True, capture_output=True)


def test_the_first_push_of_50_000_files(host: Place, tmp_path: Path, record: Record) -> None:
    ours, theirs = [], []
    for number in range(ROUNDS):
        # In turns: whatever else the machine does, it does to both.
        theirs.append(seconds(lambda n=number: by_hand(host.root, tmp_path / f"hand{n}")))
        ours.append(seconds(lambda n=number: Pair(host, Place(tmp_path / f"ours{n}" / "repo")).push()))
    mine, hand = statistics.median(ours), statistics.median(theirs)
    assert Place(tmp_path / "ours0" / "repo").status == Place(tmp_path / "hand0" / "repo").status
    record(
        Measurement(
            "first push of 50,000 files",
            f"push {mine:.1f} s",
            f"git bundle, cat, git clone {hand:.1f} s",
            mine / hand,
            1.3,
            "x",
        )
    )


def test_a_push_of_50_000_files_that_have_not_changed(host: Place, tmp_path: Path, record: Record) -> None:
    pair = Pair(host, Place(tmp_path / "guest" / "repo"))
    pair.push()
    rounds = [seconds(pair.push) for _ in range(5)]
    status = [seconds(lambda: host.git("status", "--porcelain")) for _ in range(5)]
    mine, plain = statistics.median(rounds), statistics.median(status)
    record(Measurement("unchanged push", f"push {mine:.2f} s", f"git status {plain:.2f} s", mine, 1.0, " s"))


def test_a_push_of_one_file_of_50_000(host: Place, tmp_path: Path, record: Record) -> None:
    pair = Pair(host, Place(tmp_path / "guest" / "repo"))
    pair.push()

    def edit_and_push(number: int) -> float:
        host.write("001/00001.py", f"changed {number}\n")
        return seconds(pair.push)

    mine = statistics.median(edit_and_push(number) for number in range(5))
    plain = statistics.median(seconds(lambda: host.git("stash", "create")) for _ in range(5))
    record(
        Measurement(
            "push of one changed file", f"push {mine:.2f} s", f"git stash create {plain:.2f} s", mine / plain, 12, "x"
        )
    )
