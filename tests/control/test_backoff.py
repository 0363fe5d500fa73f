"""Retries: the first one soon, then ever more seldom, and cleared by the success of what failed."""

from __future__ import annotations

import random

import pytest

from reconciler.control.backoff import Failures, delay
from tests.fakes.sched import RETRYABLE, TERMINAL


class Least(random.Random):
    """The chance that makes most attempts."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Most(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(("chance", "first", "longest"), [(Least(), 0.5, 150.0), (Most(), 1.0, 300.0)])
def test_delays_double_from_a_second_to_five_minutes(chance: random.Random, first: float, longest: float) -> None:
    delays = [delay(attempts, RETRYABLE, chance) for attempts in (1, 2, 3, 9, 10, 100_000)]
    assert delays == [first, 2 * first, 4 * first, 256 * first, longest, longest]


def test_at_most_twelve_attempts_in_ten_minutes_whatever_the_chance() -> None:
    failures = Failures(Least())
    now, attempts = 0.0, 0
    while now <= 600.0:
        attempts += 1
        failures.failed("vm/a", "start vm/a", RETRYABLE, now)
        due = failures.due("vm/a")
        assert due is not None
        now = due
    assert attempts == 12


def test_what_only_a_change_of_the_host_can_help_is_tried_again_from_half_a_minute_on() -> None:
    assert [delay(n, TERMINAL, Least()) for n in (1, 2, 4)] == [30.0, 60.0, 150.0]
    assert [delay(n, TERMINAL, Most()) for n in (1, 2, 4)] == [60.0, 120.0, 300.0]


def test_the_delay_is_spread() -> None:
    chance = random.Random(1)
    delays = {delay(5, RETRYABLE, chance) for _ in range(100)}
    assert len(delays) == 100 and min(delays) < 9.0 and max(delays) > 15.0
    assert all(8.0 <= found <= 16.0 for found in delays)


def test_success_clears_what_failed() -> None:
    failures = Failures(Most())
    failures.failed("vm/a", "start vm/a", RETRYABLE, 0.0)
    failures.failed("vm/b", "start vm/b", RETRYABLE, 0.0)
    failures.succeeded("vm/a", "start vm/a", {"start vm/a"})
    assert failures.due("vm/a") is None and failures.due("vm/b") == 1.0


def test_the_success_of_a_step_before_it_does_not_clear_it() -> None:
    failures = Failures(Most())
    planned = {"connect vm/a", "start vm/a"}
    for _ in range(4):
        failures.succeeded("vm/a", "connect vm/a", planned)
        failures.failed("vm/a", "start vm/a", RETRYABLE, 0.0)
    assert failures.due("vm/a") == 8.0


def test_a_failure_that_no_plan_asks_for_any_more_does_not_outlive_a_success() -> None:
    failures = Failures(Most())
    failures.failed("vm/a", "stop vm/a", RETRYABLE, 0.0)
    failures.succeeded("vm/a", "record vm/a", {"record vm/a"})
    assert failures.due("vm/a") is None


def test_waiting_is_no_failure_and_no_busy_loop() -> None:
    failures = Failures(Most())
    failures.waited("vm/a", 10.0)
    due = failures.due("vm/a")
    assert due is not None and due > 10.0
    assert not list(failures.wanted())
    failures.failed("vm/a", "start vm/a", RETRYABLE, 20.0)
    assert failures.due("vm/a") == 21.0


def test_waiting_does_not_shorten_a_delay() -> None:
    failures = Failures(Most())
    failures.failed("vm/a", "start vm/a", TERMINAL, 0.0)
    failures.waited("vm/a", 1.0)
    assert failures.due("vm/a") == 60.0


def test_what_is_well_is_not_told_and_later_forgotten() -> None:
    failures = Failures(Most())
    failures.failed("vm/a", "start vm/a", RETRYABLE, 0.0)
    failures.look({"start vm/a"}, 1.0)
    assert [target for target, _ in failures.wanted()] == ["vm/a"]
    failures.look(set(), 2.0)
    assert not list(failures.wanted())
    failures.failed("vm/a", "start vm/a", RETRYABLE, 3.0)
    assert failures.due("vm/a") == 5.0, "being away for a moment is no success"
    failures.look(set(), 700.0)
    failures.failed("vm/a", "start vm/a", RETRYABLE, 700.0)
    assert failures.due("vm/a") == 701.0
