"""Repairs: at once for what was undone once, seldom for what is undone again, none where it does not help."""

from __future__ import annotations

from itertools import pairwise

from reconciler.control.repairs import MOST, WINDOW_SECONDS, Repairs

STEP = "ensure network/lab"
LAB = "network/lab"


def undone(repairs: Repairs, *, every: float, since: float, until: float) -> list[float]:
    """The times at which it is repaired while somebody undoes it `every` seconds."""
    done = []
    now = since
    while now <= until:
        at = repairs.planned(LAB, STEP, now)
        if at <= now:
            repairs.succeeded(LAB, STEP, now)
            done.append(now)
        now += every
    return done


def test_what_is_undone_once_is_repaired_at_once() -> None:
    repairs = Repairs()
    assert repairs.planned(LAB, STEP, 5.0) == 5.0
    repairs.succeeded(LAB, STEP, 5.0)
    assert repairs.planned(LAB, STEP, 5.1) == 5.1


def test_then_the_delay_grows() -> None:
    repairs = Repairs()
    done = undone(repairs, every=0.5, since=0.0, until=100.0)
    gaps = [later - earlier for earlier, later in pairwise(done[1:])]
    assert gaps == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_at_most_seven_in_any_ten_minutes_and_then_it_is_left_alone() -> None:
    repairs = Repairs()
    done = undone(repairs, every=1.0, since=0.0, until=6 * 3600.0)
    assert len([at for at in done if at < WINDOW_SECONDS]) == MOST
    assert all(len([b for b in done if a <= b < a + WINDOW_SECONDS]) <= MOST for a in done)
    assert repairs.contended(LAB, 6 * 3600.0) is not None


def test_after_a_quiet_ten_minutes_one_try_is_made() -> None:
    repairs = Repairs()
    first = undone(repairs, every=1.0, since=0.0, until=WINDOW_SECONDS)
    until = repairs.contended(LAB, WINDOW_SECONDS)
    assert len(first) == MOST and until is not None
    later = undone(repairs, every=1.0, since=WINDOW_SECONDS + 1, until=until + WINDOW_SECONDS)
    assert len(later) == 1 and until <= later[0] < until + 1
    assert repairs.contended(LAB, until + 2) is not None


def test_a_try_that_lasts_ends_the_contention() -> None:
    repairs = Repairs()
    undone(repairs, every=1.0, since=0.0, until=WINDOW_SECONDS)
    until = repairs.contended(LAB, WINDOW_SECONDS)
    assert until is not None and repairs.planned(LAB, STEP, until) == until
    assert repairs.planned(LAB, STEP, until + 1) == until + 1, "asked again before it is done"
    repairs.succeeded(LAB, STEP, until + 2)
    repairs.look(set(), (), until + 3)
    quiet = until + 2 + WINDOW_SECONDS
    done = undone(repairs, every=1.0, since=quiet, until=quiet + 100)
    assert len(done) == MOST


def test_a_try_that_is_under_way_still_is_the_one_try() -> None:
    repairs = Repairs()
    undone(repairs, every=1.0, since=0.0, until=WINDOW_SECONDS)
    until = repairs.contended(LAB, WINDOW_SECONDS)
    assert until is not None and repairs.planned(LAB, STEP, until) == until
    repairs.look(set(), {LAB}, until + 1)
    repairs.succeeded(LAB, STEP, until + 2)
    assert repairs.planned(LAB, STEP, until + 3) == until + 3 + WINDOW_SECONDS


def test_what_others_have_mended_by_then_begins_anew() -> None:
    repairs = Repairs()
    undone(repairs, every=1.0, since=0.0, until=WINDOW_SECONDS)
    until = repairs.contended(LAB, WINDOW_SECONDS)
    assert until is not None
    repairs.look(set(), (), until + 1)
    assert len(undone(repairs, every=1.0, since=until + 2, until=until + 100)) == MOST


def test_while_it_is_contended_a_plan_without_it_changes_nothing() -> None:
    repairs = Repairs()
    undone(repairs, every=1.0, since=0.0, until=200.0)
    repairs.look(set(), (), 201.0)
    assert repairs.contended(LAB, 202.0) is not None
    assert repairs.planned(LAB, STEP, 203.0) > 203.0


def test_a_kill_every_day_or_every_two_minutes_is_no_contention() -> None:
    for every in (120.0, 86_400.0):
        repairs = Repairs()
        done = undone(repairs, every=every, since=0.0, until=100 * every)
        assert len(done) == 101 and repairs.contended(LAB, 100 * every) is None


def test_steps_of_one_object_have_their_own_count() -> None:
    repairs = Repairs()
    for _ in range(4):
        for step in ("stop vm/a", "start vm/a"):
            repairs.succeeded("vm/a", step, 0.0)
    assert repairs.planned("vm/a", "start vm/a", 100.0) == 100.0
    assert repairs.contended("vm/a", 100.0) is None


def test_what_nobody_undid_for_a_while_takes_no_room() -> None:
    repairs = Repairs()
    for number in range(100):
        repairs.succeeded(f"cache/{number}", f"sweep cache/{number}", 0.0)
    repairs.look(set(), (), WINDOW_SECONDS + 1)
    assert not repairs._ledgers
