"""Planner cases as data files: desired and observed in, actions, reasons, edges and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plan.cases import plan_of, shown

FOLDER = Path(__file__).parent.parent / "cases" / "plan"
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    made = shown(plan_of(case))
    releases = made.pop("releases")
    assert made == {"steps": case.get("steps", []), "held": case.get("held", [])}
    if "releases" in case:
        assert releases == case["releases"]


def test_no_two_cases_have_one_name() -> None:
    assert len({param.id for param in CASES}) == len(CASES) >= 40
