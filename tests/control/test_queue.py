"""The queue: each key once, at its earliest time, and never while it is busy."""

from __future__ import annotations

from reconciler.control.queue import KeyQueue


def taken(queue: KeyQueue, now: float) -> list[str]:
    found = []
    while (key := queue.take(now)) is not None:
        found.append(key)
    return found


def test_a_key_that_is_queued_often_is_given_out_once() -> None:
    queue = KeyQueue()
    for _ in range(1000):
        queue.poke("a", 1.0)
    assert taken(queue, 1.0) == ["a"] and queue.next_due() is None


def test_the_earliest_time_wins_whichever_came_first() -> None:
    queue = KeyQueue()
    queue.poke("a", 5.0)
    queue.poke("a", 2.0)
    queue.poke("a", 9.0)
    assert queue.next_due() == 2.0
    assert taken(queue, 1.9) == [] and taken(queue, 2.0) == ["a"]


def test_what_is_due_for_longest_comes_first() -> None:
    queue = KeyQueue()
    queue.poke("late", 3.0)
    queue.poke("early", 1.0)
    queue.poke("middle", 2.0)
    assert taken(queue, 9.0) == ["early", "middle", "late"]


def test_a_busy_key_waits_and_runs_once_more() -> None:
    queue = KeyQueue()
    queue.poke("a", 1.0)
    assert queue.take(1.0) == "a"
    for at in (7.0, 2.0, 3.0):
        queue.poke("a", at)
    assert queue.take(9.0) is None and queue.next_due() is None
    queue.rest("a")
    assert queue.next_due() == 2.0 and taken(queue, 9.0) == ["a"]


def test_a_held_key_rests_only_when_all_have_let_go_and_loses_nothing() -> None:
    queue = KeyQueue()
    queue.poke("a", 1.0)
    queue.hold("a")
    queue.hold("a")
    assert queue.take(9.0) is None
    queue.rest("a")
    assert queue.take(9.0) is None
    queue.rest("a")
    assert queue.next_due() == 1.0 and queue.take(9.0) == "a"


def test_nothing_comes_before_its_floor_until_that_is_taken_back() -> None:
    queue = KeyQueue()
    queue.not_before("a", 10.0)
    queue.poke("a", 1.0)
    assert queue.take(9.9) is None and queue.next_due() == 10.0
    queue.not_before("a", None)
    queue.poke("a", 2.0)
    assert queue.take(2.0) == "a"
    queue.not_before("a", 20.0)
    queue.poke("a", 3.0)
    queue.rest("a")
    assert queue.next_due() == 20.0


def test_only_what_somebody_asked_for_counts_as_asked() -> None:
    queue = KeyQueue()
    queue.poke("timer", 1.0, asked=False)
    queue.poke("person", 1.0)
    assert queue.asked("person") and not queue.asked("timer")
    taken(queue, 1.0)
    assert not queue.asked("person")
    queue.poke("person", 2.0)
    assert queue.asked("person")


def test_a_dropped_key_is_gone() -> None:
    queue = KeyQueue()
    queue.not_before("a", 10.0)
    queue.poke("a", 1.0)
    queue.drop("a")
    assert "a" not in queue and not queue.asked("a")
    queue.poke("a", 1.0)
    assert queue.next_due() == 1.0
