"""The wheel under trouble: failures, somebody who undoes things, and too much to do at once."""

from __future__ import annotations

from collections import Counter

import pytest

from reconciler.control.board import Lane
from reconciler.control.repairs import MOST
from reconciler.control.wheel import REST_SECONDS, Wheel
from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step
from tests.fakes.sched import (
    RETRYABLE,
    TERMINAL,
    FakeHost,
    Simulation,
    Thing,
    bridge,
    quick,
    simulation,
    start,
    stop,
)

HOUR = 3600.0
SOON = 1.0


class TestTrouble:
    def test_one_that_fails_for_ever_delays_nobody_and_is_tried_twelve_times_in_ten_minutes(self) -> None:
        def turned(error: BangerError | None) -> Simulation:
            things = [Thing(start(f"v{n}"), seconds=5.0) for n in range(20)]
            things[3].error = error
            made = simulation(*things, starts=20)
            made.run(600.0)
            return made

        without, broken = turned(None), turned(RETRYABLE)
        others = {ran.target: ran.ended for ran in without.ran if ran.target != "vm/v3"}
        assert {ran.target: ran.ended for ran in broken.ran if ran.target != "vm/v3"} == others
        assert 7 <= len(broken.tried("vm/v3")) <= 12

    def test_the_first_retry_comes_within_a_second_or_so(self) -> None:
        turned = simulation(Thing(quick("a"), error=RETRYABLE))
        turned.run(10.0)
        first, second = turned.ran[:2]
        assert 0.5 <= second.began - first.ended <= 1.0 + REST_SECONDS

    def test_pokes_do_not_hasten_a_retry(self) -> None:
        turned = simulation(Thing(quick("a"), error=RETRYABLE))
        turned.each(0.5, 600.0, lambda: turned.poke("env"))
        turned.run(600.0)
        assert len(turned.ran) <= 12

    def test_what_needs_a_change_of_the_host_is_tried_at_once_with_a_new_generation(self) -> None:
        thing = Thing(quick("a"), error=TERMINAL)
        turned = simulation(thing)
        turned.run(25.0)
        assert len(turned.ran) == 1
        turned.host.generations["env"] += 1
        turned.poke("env")
        turned.run(26.0)
        assert len(turned.ran) == 2
        turned.run(90.0)
        assert len(turned.ran) == 3, "without one, after half a minute or more"

    def test_a_person_can_have_one_object_tried_at_once(self) -> None:
        turned = simulation(Thing(quick("a"), error=TERMINAL), Thing(quick("b"), error=TERMINAL))
        turned.run(5.0)
        turned.wheel.forget("env", "vm/a", turned.now)
        turned.run(6.0)
        assert Counter(ran.target for ran in turned.ran) == {"vm/a": 2, "vm/b": 1}

    def test_waiting_counts_as_nothing_and_is_no_busy_loop(self) -> None:
        for result in (Result.SKIPPED, Result.CANCELLED):
            turned = simulation(Thing(quick("a"), result=result))
            turned.run(60.0)
            assert 6 <= len(turned.ran) <= 13
            assert not turned.wheel.troubles("env", turned.now)

    def test_trouble_is_told_while_it_lasts(self) -> None:
        thing = Thing(quick("a"), error=RETRYABLE, seconds=3.0)
        turned = simulation(thing)
        turned.run(1.0)
        flying = turned.wheel.troubles("env", turned.now)["vm/a"]
        assert (flying.in_flight, flying.since, flying.retry_in, flying.attempts) == ("disconnect", 0.0, None, 0)
        turned.run(3.2)
        failing = turned.wheel.troubles("env", turned.now)["vm/a"]
        assert failing.in_flight is None and failing.attempts == 1 and failing.error is RETRYABLE
        assert failing.retry_in is not None and 0.2 < failing.retry_in <= 0.8 and not failing.contended
        thing.error = None
        turned.run(10.0)
        assert not turned.wheel.troubles("env", turned.now)
        assert turned.wheel.troubles("nowhere", turned.now) == {}

    def test_what_is_paused_is_not_begun(self) -> None:
        turned = simulation(Thing(quick("a")), Thing(quick("b")))
        turned.host.paused.add("vm/a")
        turned.run(HOUR)
        assert [ran.target for ran in turned.ran] == ["vm/b"]
        turned.host.paused.clear()
        turned.poke("env")
        turned.run(HOUR)
        assert len(turned.tried("vm/a")) == 1


class TestContention:
    def test_a_bridge_that_is_undone_each_second_is_repaired_seven_times_and_then_left_alone(self) -> None:
        lab = Thing(bridge("lab"))
        turned = simulation(lab, Thing(quick("web"), done=True))

        def undo() -> None:
            lab.done = False
            turned.poke("env")

        turned.each(1.0, 600.0, undo)
        turned.run(600.0)
        assert 3 <= len(turned.ran) <= 7
        assert all(ran.began < 120.0 for ran in turned.ran), "quiet after that"
        trouble = turned.wheel.troubles("env", turned.now)["network/lab"]
        assert trouble.contended and trouble.retry_in is not None and trouble.retry_in > 0

    def test_it_is_tried_again_after_ten_minutes_without_anybody_asking(self) -> None:
        lab = Thing(bridge("lab"), effective=False)
        turned = simulation(lab)
        turned.host.every = 24 * HOUR
        turned.run(60.0 * 10)
        tries = len(turned.ran)
        lab.effective = True
        turned.run(60.0 * 12)
        assert len(turned.ran) == tries + 1 and not turned.wheel.troubles("env", turned.now)

    def test_no_other_step_touches_a_contended_object(self) -> None:
        thing = Thing(quick("a"), effective=False)
        turned = simulation(thing)
        turned.run(200.0)
        assert turned.wheel.troubles("env", turned.now)["vm/a"].contended
        turned.host.add("env", [Thing(stop("a")), Thing(stop("b"))])
        turned.poke("env")
        turned.run(210.0)
        assert turned.ran[-1].target == "vm/b" and "stop vm/a" not in {ran.step for ran in turned.ran}

    def test_not_even_one_that_is_planned_before_the_one_that_is_undone(self) -> None:
        wheel, now = Wheel(), 0.0
        undone, before = Step(quick("a")), Step(stop("a"))
        for _ in range(MOST):
            wheel.poke("env", now)
            wheel.begin(now)
            wheel.put_up("env", wheel.look("env", 1, Plan(environment="env", steps=(undone,)), now), HOUR, now)
            wheel.end("env", 0.0, now)
            assert wheel.take(Lane.QUICK, now) == ("env", undone)
            wheel.ended("env", undone, Outcome(step=undone.id, object="vm/a", result=Result.DONE), now)
            now += 60.0
        wheel.begin(now)
        assert wheel.look("env", 1, Plan(environment="env", steps=(before, undone)), now) == []

    @pytest.mark.parametrize("how", ["generation", "forget"])
    def test_what_is_wanted_anew_is_tried_at_once(self, how: str) -> None:
        thing = Thing(quick("a"), effective=False)
        turned = simulation(thing)
        turned.run(200.0)
        tries = len(turned.ran)
        thing.effective = True
        if how == "generation":
            turned.host.generations["env"] += 1
            turned.poke("env")
        else:
            turned.wheel.forget("env", "vm/a", turned.now)
        turned.run(201.0)
        assert len(turned.ran) == tries + 1 and not turned.wheel.troubles("env", turned.now)

    def test_a_daily_kill_is_repaired_at_once_for_ever(self) -> None:
        vm = Thing(start("web"), seconds=1.0)
        turned = simulation(vm)

        def kill() -> None:
            vm.done = False
            turned.poke("env")

        turned.each(24 * HOUR, 30 * 24 * HOUR, kill)
        turned.run(31 * 24 * HOUR)
        assert [round(ran.began % (24 * HOUR)) for ran in turned.ran] == [0] * 31

    def test_twenty_killed_at_once_are_repaired_at_once(self) -> None:
        vms = [Thing(start(f"v{n}"), done=True) for n in range(20)]
        turned = simulation(*vms, starts=20)
        turned.run(100.0)

        def kill() -> None:
            for vm in vms:
                vm.done = False
            turned.poke("env")

        for when in (100.0, 101.0):
            turned.at(when, kill)
        turned.run(103.0)
        assert Counter(ran.began for ran in turned.ran) == {100.0: 20, 101.0: 20}


class TestFairness:
    def test_hundreds_of_steps_of_one_environment_do_not_starve_another(self) -> None:
        host = FakeHost()
        host.add("big", [Thing(quick(f"v{n}"), seconds=1.0) for n in range(300)])
        turned = Simulation(host, workers=8)
        turned.poke("big")
        turned.run(10.5)
        host.add("small", [Thing(quick(f"v{n}"), seconds=1.0) for n in range(8)])
        turned.poke("small")
        turned.run(HOUR)
        small = [ran.began for ran in turned.ran if ran.environment == "small"]
        assert max(small) <= 13.1 and len(small) == 8
        assert len(turned.ran) == 308

    def test_a_thousand_steps_keep_all_workers_at_work(self) -> None:
        turned = simulation(*(Thing(quick(f"v{n}"), seconds=1.0) for n in range(1000)), workers=8)
        turned.run(HOUR)
        assert len({ran.step for ran in turned.ran}) == len(turned.ran) == 1000
        assert max(ran.ended for ran in turned.ran) == 125.0

    def test_the_earliest_environment_is_looked_at_first_even_in_a_storm(self) -> None:
        host = FakeHost()
        for name in ("noisy", "calm"):
            host.add(name, [])
        turned = Simulation(host)
        turned.each(0.001, 1.0, lambda: turned.poke("noisy"))
        turned.at(0.5, lambda: turned.poke("calm"))
        turned.run(1.0)
        assert (0.5, "calm") in turned.passes
