"""`python -m tests.fuzz.layers --archives 10000 --seed 1`"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import tempfile
from pathlib import Path

from reconciler.drivers.images.sandbox import Bounds, boxed, interpreter
from reconciler.lib.run import run
from tests.fuzz.layers import others
from tests.fuzz.layers.compare import Ours, differences, ours
from tests.fuzz.layers.known import reason
from tests.fuzz.layers.mutants import archive

_BATCH = 200


def others_of(folder: Path, work: Path) -> dict[str, dict[str, object]]:
    """What the other readers make of every archive of a folder."""
    script = Path(others.__file__)
    argv = boxed(
        [*interpreter(), "/others.py", "/archives", "/unpacked"],
        Bounds(1 << 30, 600, 64 << 20),
        readable={folder: "/archives", script: "/others.py"},
        writable={work: "/unpacked"},
        python=True,
    )
    lines = run(argv).stdout.decode().splitlines()
    return {found.pop("archive"): found for found in map(json.loads, lines)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--archives", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for archives that readers disagree on")
    options = parser.parse_args()
    tally: collections.Counter[str] = collections.Counter()
    refusals: collections.Counter[str] = collections.Counter()
    unknown: list[str] = []
    for first in range(0, options.archives, _BATCH):
        with tempfile.TemporaryDirectory() as name:
            folder, work = Path(name) / "archives", Path(name) / "work"
            folder.mkdir()
            work.mkdir()
            mine: dict[str, Ours] = {}
            for number in range(first, min(first + _BATCH, options.archives)):
                data = archive(random.Random(f"{options.seed}/{number}"))
                mine[f"{number}"] = ours(data, folder / f"{number}")
            theirs = others_of(folder, work)
            for number, our in mine.items():
                for line in _judge(our, theirs[number], tally, refusals):
                    unknown.append(f"archive {number}: {line}")
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / number).write_bytes((folder / number).read_bytes())
    print(f"{options.archives} archives, seed {options.seed}")
    for what, count in sorted(tally.items()):
        print(f"  {count:6} {what}")
    for what, count in refusals.most_common():
        print(f"  {count:6} refused: {what}")
    print("\n".join(unknown) or "every disagreement is refused, or documented")
    return 1 if unknown else 0


def _judge(
    our: Ours, theirs: dict[str, object], tally: collections.Counter[str], refusals: collections.Counter[str]
) -> list[str]:
    """The disagreements that nobody can explain."""
    if our.tree is None:
        tally["refused"] += 1
        refusals[_rule(our.refused)] += 1
        return []
    tally["accepted"] += 1
    found = []
    for program, result in theirs.items():
        lines = differences(our, result)  # type: ignore[arg-type]  # JSON
        if not lines:
            tally[f"accepted, and {program} agrees"] += 1
        elif why := reason(program, our, result, lines):  # type: ignore[arg-type]  # JSON
            tally[f"accepted, and {program} differs: {why}"] += 1
        else:
            found.append(f"{program}: {lines[0]}; it said {str(result['said'])[:200]!r}")  # type: ignore[index]  # JSON
    return found


def _rule(refused: str) -> str:
    """A refusal without names and numbers."""
    text = refused.removeprefix("layer 1 of 1 ")
    if text.startswith("entry '"):
        text = text.split("': ", 1)[-1]
    return re.sub(r"[0-9]+", "#", re.sub(r"'[^']*'", "…", text))


if __name__ == "__main__":
    sys.exit(main())
