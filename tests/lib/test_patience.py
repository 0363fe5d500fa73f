"""How booting guests are asked: soon at first, and never so often that it keeps them from booting."""

from __future__ import annotations

import pytest

from reconciler.lib.patience import patience, pause


@pytest.mark.parametrize(("waited", "seconds"), [(0.0, 0.05), (1.0, 0.05), (10.0, 0.2), (90.0, 0.5), (1e6, 0.5)])
def test_the_pause_grows_with_the_time_that_the_guest_takes(waited: float, seconds: float) -> None:
    assert pause(waited) == pytest.approx(seconds)


def test_probes_are_a_small_part_of_a_boot() -> None:
    waited, asked = 0.0, 0
    while waited < 30:
        waited += pause(waited)
        asked += 1
    assert asked < 180, "a fixed pause of 0.05 s would have asked 600 times"


def test_answers_are_given_more_time_the_longer_it_takes() -> None:
    given = [patience(attempt) for attempt in range(100)]
    assert given == sorted(given) and (given[0], given[-1]) == (3.0, 10.0)
