"""The wheel in simulated time: what is done when, what waits for what, and what is left alone."""

from __future__ import annotations

import threading

import pytest

from reconciler.control.board import Lane
from reconciler.control.host import PassReport
from reconciler.control.wheel import REST_SECONDS
from reconciler.lib.errors import BangerError
from tests.fakes.sched import (
    RETRYABLE,
    FakeHost,
    Simulation,
    Thing,
    bridge,
    build,
    evict,
    nothing,
    quick,
    simulation,
    start,
    stop,
)

HOUR = 3600.0
SOON = 1.0


class TestOrder:
    def test_a_step_begins_when_all_that_it_needs_is_done(self) -> None:
        image = Thing(build("base"), seconds=10.0)
        net = Thing(bridge("lab"), seconds=3.0)
        vm = Thing(start("web"), needs=(image, net), seconds=1.0)
        other = Thing(quick("other"), needs=(net,), seconds=1.0)
        turned = simulation(vm, other, image, net)
        turned.run(60.0)
        began = {ran.target: ran.began for ran in turned.ran}
        assert began == {
            "image/base": 0.0,
            "network/lab": 0.0,
            "vm/other": pytest.approx(3.0, abs=0.1),
            "vm/web": pytest.approx(10.0, abs=0.1),
        }

    def test_what_a_failed_step_was_needed_for_is_not_tried(self) -> None:
        net = Thing(bridge("lab"), error=RETRYABLE)
        turned = simulation(net, Thing(quick("web"), needs=(net,)))
        turned.run(HOUR)
        assert turned.tried("network/lab") and not turned.tried("vm/web")

    def test_two_steps_of_one_object_follow_each_other(self) -> None:
        turned = simulation(Thing(quick("a"), seconds=5.0), Thing(stop("a"), seconds=5.0))
        turned.run(60.0)
        first, second = turned.tried("vm/a")
        assert first.ended <= second.began

    def test_nothing_waits_behind_builds_and_stops_and_starts(self) -> None:
        slow = [Thing(kind(f"{kind.__name__}{n}"), seconds=100.0) for kind in (build, stop, start) for n in range(50)]
        turned = simulation(*slow, workers=4, starts=2)
        turned.run(10.0)
        turned.host.add("env", [Thing(bridge("lab"))])
        turned.poke("env")
        turned.run(11.0)
        assert [ran.began for ran in turned.tried("network/lab")] == [10.0]

    def test_starts_are_as_many_at_once_as_there_are_places(self) -> None:
        turned = simulation(*(Thing(start(f"v{n}"), seconds=10.0) for n in range(6)), starts=2)
        turned.run(100.0)
        assert [round(ran.began) for ran in turned.ran] == [0, 0, 10, 10, 20, 20]


class TestObservedStateOnly:
    """I1: a plan that is older than what was done since is not followed."""

    def test_what_ended_while_the_host_was_observed_is_not_done_again(self) -> None:
        turned = simulation(Thing(quick("a"), seconds=5.0))
        turned.run(4.9)

        def it_ends(environment: str) -> None:
            turned.host.on_plan = nothing
            turned.elapse(0.2)

        turned.host.on_plan = it_ends
        turned.poke("env")
        turned.run(60.0)
        assert turned.host.reports[1].plan and turned.host.reports[1].plan.steps, "the old plan had it still"
        assert [ran.ended for ran in turned.ran] == [pytest.approx(5.1)]

    def test_what_is_not_wanted_any_more_does_not_begin(self) -> None:
        things = [Thing(quick(f"v{n}"), seconds=10.0) for n in range(10)]
        turned = simulation(*things, workers=2)
        turned.run(5.0)
        turned.host.things["env"] = things[:2]
        turned.poke("env")
        turned.run(HOUR)
        assert {ran.target for ran in turned.ran} == {"vm/v0", "vm/v1"}

    def test_what_was_planned_before_the_file_changed_does_not_begin(self) -> None:
        turned = simulation(Thing(quick("a"), seconds=5.0), Thing(quick("b")), workers=1)
        turned.run(1.0)
        turned.wheel.forget("env", None, turned.now)
        assert turned.wheel.take(Lane.QUICK, turned.now) is None

    def test_a_plan_that_was_made_while_the_file_changed_is_not_followed(self) -> None:
        turned = simulation(Thing(quick("old")))

        def changed(environment: str) -> None:
            turned.host.on_plan = nothing
            turned.host.things["env"] = [Thing(quick("new"))]
            turned.host.generations["env"] += 1
            turned.wheel.forget("env", None, turned.now)

        turned.host.on_plan = changed
        turned.run(SOON)
        assert [ran.target for ran in turned.ran] == ["vm/new"]

    def test_a_host_that_cannot_be_observed_is_left_alone_and_looked_at_ever_more_seldom(self) -> None:
        things = [Thing(quick(f"v{n}"), seconds=10.0) for n in range(4)]
        turned = simulation(*things, workers=1)
        turned.run(5.0)
        turned.host.broken = BangerError("netlink is silent")
        turned.poke("env")
        turned.run(11 * 60.0)
        assert len(turned.ran) == 1, "only what had begun ends"
        passes = [at for at, _ in turned.passes if at >= 5.0]
        assert 10 <= len(passes) <= 25
        assert passes[1] - passes[0] <= 1.0 and passes[-1] - passes[-2] > 20.0
        failed = turned.host.reports[-1]
        assert failed.plan is None and str(failed.error) == "netlink is silent" and failed.next_in is not None
        turned.host.broken = None
        turned.run(13 * 60.0)
        assert len(turned.ran) == 4

    def test_one_good_look_makes_the_delays_short_again(self) -> None:
        turned = simulation()
        for until in (300.0, 700.0):
            turned.host.broken = BangerError("netlink is silent")
            turned.poke("env")
            turned.run(until)
            turned.host.broken = None
            turned.run(until + 100.0)
        second = [at for at, _ in turned.passes if at >= 400.0]
        assert second[1] - second[0] <= 1.0

    def test_pokes_do_not_hasten_a_host_that_cannot_be_observed_but_a_person_does(self) -> None:
        turned = simulation(Thing(quick("a")))
        turned.host.broken = BangerError("netlink is silent")
        turned.each(0.01, 60.0, lambda: turned.poke("env"))
        turned.run(60.0)
        assert len(turned.passes) <= 12
        turned.host.broken = None
        turned.wheel.forget("env", None, turned.now)
        turned.run(60.0)
        assert len(turned.ran) == 1

    def test_a_defect_in_a_pass_is_reported_and_not_the_end(self) -> None:
        turned = simulation(Thing(quick("a")))
        turned.host.broken = ZeroDivisionError("oops")
        turned.run(0.2)
        error = turned.host.reports[-1].error
        assert error is not None and "ZeroDivisionError: oops" in error.cause and error.hint is not None
        turned.host.broken = None
        turned.run(5.0)
        assert turned.host.reports[-1].error is None and len(turned.ran) == 1

    def test_what_nobody_could_be_told_is_told_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threading, "excepthook", lambda args: None)
        turned = simulation()
        turned.host.every = HOUR
        told = turned.host.settled

        def deaf(report: PassReport) -> None:
            monkeypatch.setattr(turned.host, "settled", told)
            raise KeyError("nobody")

        monkeypatch.setattr(turned.host, "settled", deaf)
        turned.run(120.0)
        assert len(turned.host.reports) == 1


class TestIdle:
    def test_a_day_of_nothing_is_resyncs_and_no_step(self) -> None:
        turned = simulation(*(Thing(quick(f"v{n}"), done=True) for n in range(100)))
        turned.run(24 * HOUR)
        assert not turned.ran
        assert 24 * 12 / 1.1 <= len(turned.passes) <= 24 * 12 / 0.9 + 1

    def test_resyncs_of_environments_drift_apart(self) -> None:
        host = FakeHost()
        for name in ("a", "b"):
            host.add(name, [])
        turned = Simulation(host)
        turned.poke()
        turned.run(HOUR)
        times = {name: [at for at, key in turned.passes if key == name][1:] for name in ("a", "b")}
        assert not set(times["a"]) & set(times["b"])

    def test_an_environment_that_is_gone_is_looked_at_no_more(self) -> None:
        turned = simulation()
        turned.run(HOUR)
        del turned.host.generations["env"]
        turned.run(2 * HOUR)
        last = len(turned.passes)
        turned.run(10 * HOUR)
        assert len(turned.passes) == last and turned.wheel.next_due() is None
        assert not turned.wheel._environments

    def test_a_thousand_pokes_at_once_are_at_most_two_passes(self) -> None:
        turned = simulation()
        turned.run(SOON)
        before = len(turned.passes)

        def more(environment: str) -> None:
            turned.host.on_plan = nothing
            turned.poke("env", times=500)

        turned.host.on_plan = more
        turned.at(10.0, lambda: turned.poke("env", times=500))
        turned.run(20.0)
        assert len(turned.passes) - before == 2

    def test_a_storm_of_pokes_is_a_bounded_number_of_passes(self) -> None:
        turned = simulation()
        turned.each(0.001, 2.0, lambda: turned.poke("env"))
        turned.run(10.0)
        assert 2 < len(turned.passes) <= 2.0 / REST_SECONDS + 2

    def test_slow_passes_leave_half_of_the_time_to_others(self) -> None:
        turned = simulation()
        turned.host.on_plan = lambda environment: turned.elapse(0.2)
        turned.each(0.001, 10.0, lambda: turned.poke("env"))
        turned.run(10.0)
        assert 20 <= len(turned.passes) <= 26


class TestReservation:
    def test_nothing_begins_on_what_is_reserved_and_the_rest_is_kept(self) -> None:
        turned = simulation(Thing(quick("a")), Thing(quick("b")))
        turned.wheel.reserve("env", frozenset({"vm/a"}))
        assert turned.wheel.in_the_way("env") is None
        turned.run(10.0)
        assert [ran.target for ran in turned.ran] == ["vm/b"]
        turned.wheel.release("env", turned.now)
        turned.run(11.0)
        assert [ran.target for ran in turned.ran] == ["vm/b", "vm/a"]

    def test_all_of_it_means_no_pass_either(self) -> None:
        turned = simulation(Thing(quick("a")))
        turned.wheel.reserve("env", None)
        turned.run(HOUR)
        assert not turned.passes
        turned.wheel.release("env", turned.now)
        turned.run(HOUR + 1)
        assert len(turned.ran) == 1

    def test_what_was_put_up_before_does_not_begin(self) -> None:
        for objects in (None, frozenset({"vm/b"})):
            turned = simulation(Thing(quick("a"), seconds=5.0), Thing(quick("b"), seconds=5.0), workers=1)
            turned.run(1.0)
            turned.wheel.reserve("env", objects)
            turned.run(60.0)
            assert [ran.target for ran in turned.ran] == ["vm/a"]

    def test_it_waits_for_steps_on_its_objects_only(self) -> None:
        turned = simulation(Thing(quick("a"), seconds=5.0), Thing(quick("b"), seconds=9.0))
        turned.run(1.0)
        turned.wheel.reserve("env", frozenset({"vm/a"}))
        assert turned.wheel.in_the_way("env") == "disconnect vm/a"
        turned.run(6.0)
        assert turned.wheel.in_the_way("env") is None
        turned.wheel.release("env", turned.now)
        turned.wheel.reserve("env", None)
        assert turned.wheel.in_the_way("env") == "disconnect vm/b"
        turned.run(10.0)
        assert turned.wheel.in_the_way("env") is None

    def test_a_plan_made_before_it_ended_says_nothing_about_its_objects(self) -> None:
        thing = Thing(quick("a"))
        turned = simulation(thing)
        turned.wheel.reserve("env", frozenset({"vm/a"}))

        def ends(environment: str) -> None:
            turned.host.on_plan = nothing
            thing.done = True
            turned.wheel.release("env", turned.now)

        turned.host.on_plan = ends
        turned.run(10.0)
        assert not turned.ran and len(turned.passes) == 2

    def test_it_waits_for_the_pass_that_runs_and_not_for_the_next(self) -> None:
        turned = simulation()
        for objects in (None, frozenset({"vm/a"})):
            turned.poke("env")
            turned.clock.time += 1.0
            assert turned.wheel.begin(turned.now) == "env"
            turned.wheel.reserve("env", objects)
            assert turned.wheel.in_the_way("env") == "a pass"
            turned.wheel.end("env", 0.0, turned.now)
            assert turned.wheel.in_the_way("env") is None
            turned.poke("env")
            turned.clock.time += 1.0
            assert turned.wheel.begin(turned.now) == (None if objects is None else "env")
            assert turned.wheel.in_the_way("env") is None
            if objects is not None:
                turned.wheel.end("env", 0.0, turned.now)
            turned.wheel.release("env", turned.now)


class TestClock:
    def test_the_wall_clock_may_jump(self) -> None:
        """Forward a day, back a day, and ahead as after a suspend: the monotonic clock knows nothing of it."""

        def history(jumps: tuple[float, ...]) -> list[tuple[float, float, str]]:
            turned = simulation(Thing(quick("a"), error=RETRYABLE), Thing(quick("b"), effective=False))
            wall = [0.0]
            turned.clock.now = lambda: turned.clock.time + wall[0]  # type: ignore[method-assign]
            for number, jump in enumerate(jumps):
                turned.at(100.0 + number, lambda jump=jump: wall.__setitem__(0, jump))  # type: ignore[misc]
            turned.run(HOUR)
            return [(ran.began, ran.ended, ran.step) for ran in turned.ran]

        assert history(()) == history((86_400.0, -86_400.0, 0.0, 8 * HOUR))

    def test_time_that_passes_all_at_once_is_no_burst(self) -> None:
        things = [Thing(quick(f"v{n}"), error=RETRYABLE) for n in range(20)]
        turned = simulation(*things)
        turned.run(300.0)
        before, passes = len(turned.ran), len(turned.passes)
        turned.clock.time += 8 * HOUR
        turned.run(turned.now + 1.0)
        assert len(turned.ran) - before == 20 and len(turned.passes) - passes <= 3


class TestSize:
    def test_a_thousand_in_flight_and_a_thousand_waiting_cost_one_look_at_each(self) -> None:
        things = [Thing(stop(f"v{n}"), seconds=100.0) for n in range(1000)]
        turned = simulation(*things)
        turned.run(1.0)
        assert turned.host.asked == 1000 and turned.wheel.busy("env")
        turned.poke("env")
        turned.run(2.0)
        assert turned.host.asked == 2000 - 32, "not about what runs"


def test_evicting_again_and_again_is_no_contention() -> None:
    entries = Thing(evict(), seconds=0.1, effective=False)
    turned = simulation(entries)
    turned.run(60.0)
    assert len(turned.tried("cache/cache")) > 20
