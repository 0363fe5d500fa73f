"""Each file of tests/cases/spec/bad fails with exactly the problems that stand beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.spec import SpecError, load_file

CASES = sorted((Path(__file__).parent.parent / "cases" / "spec" / "bad").glob("*.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_all_problems_with_their_positions(case: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_file(case, env={})
    told = [str(problem).removeprefix(f"{case}:") for problem in caught.value.errors]
    assert told == case.with_suffix(".errors").read_text().splitlines()
    assert caught.value.exit_code == 2


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_problem_has_a_line_and_fits_on_one(case: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_file(case, env={})
    for problem in caught.value.errors:
        assert problem.line > 0 and problem.column > 0
        assert str(problem).isprintable()
        assert len(str(problem)) < len(str(case)) + 400
