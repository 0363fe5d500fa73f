"""Hearing of the packet filter: what counts, and what happens when the helper is lost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from reconciler.drivers.network import rules_watch
from reconciler.drivers.network.rules_watch import RulesWatch
from reconciler.helper.client import HelperLostError
from reconciler.lib.errors import BangerError
from tests.fakes.helper import ShownRules

PATIENCE = 60.0  # seconds; only a failing test waits for it
INSTALL = "0123456789ab"
OURS = ("env", "lab")
INTACT, FLUSHED = {OURS: ("0" * 16, True)}, {}


class Filter:
    """The packet filter of a host, and the helpers that tell of it."""

    def __init__(self) -> None:
        self.changing = threading.Condition()
        self.shown = ShownRules(generation=1, rules=INTACT, blockers=())
        self.refusals = 0
        self.clients: list[Client] = []

    def set(self, rules: dict[tuple[str, str], tuple[str, bool]]) -> None:
        with self.changing:
            self.shown = ShownRules(generation=self.shown.generation + 1, rules=rules, blockers=())
            self.changing.notify_all()

    def connect(self) -> Client:
        with self.changing:
            if self.refusals:
                self.refusals -= 1
                raise BangerError("no helper")
            self.clients.append(Client(self))
            self.changing.notify_all()
            return self.clients[-1]

    def lose(self) -> None:
        """The helper is killed."""
        self.clients[-1].interrupt()

    def watched(self, times: int) -> None:
        """Waits until a client waits for an answer, for the so-manieth time."""
        with self.changing:
            assert self.changing.wait_for(lambda: sum(c.waits for c in self.clients) >= times, PATIENCE)


class Client:
    """Has what a RulesWatch uses of a client."""

    def __init__(self, host: Filter) -> None:
        self.host = host
        self.waits = 0
        self.over = False
        self.closed = False

    def show_rules(self, *, install: str) -> ShownRules:
        assert install == INSTALL
        return self.host.shown

    def watch_rules(self, *, install: str, generation: int) -> int:
        with self.host.changing:
            self.waits += 1
            self.host.changing.notify_all()
            moved = self.host.changing.wait_for(lambda: self.over or self.host.shown.generation != generation, PATIENCE)
            assert moved
            if self.over:
                raise HelperLostError("it ended")
            return self.host.shown.generation

    def interrupt(self) -> None:
        with self.host.changing:
            self.over = True
            self.host.changing.notify_all()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Filter:
    monkeypatch.setattr(rules_watch, "_PAUSE", 0.0)
    monkeypatch.setattr(rules_watch, "_AGAIN_FIRST", 0.001)
    return Filter()


@pytest.fixture
def calls() -> queue.Queue[None]:
    return queue.Queue()


@pytest.fixture
def watch(host: Filter, calls: queue.Queue[None]) -> Iterator[RulesWatch]:
    made = RulesWatch(host.connect, INSTALL, lambda: calls.put(None))  # type: ignore[arg-type]  # all that is used of one
    yield made
    made.stop()


def test_a_flush_is_told_and_so_is_the_repair(host: Filter, watch: RulesWatch, calls: queue.Queue[None]) -> None:
    watch.start()
    host.watched(1)
    assert calls.empty()
    host.set(FLUSHED)
    calls.get(timeout=PATIENCE)
    host.watched(2)
    host.set(INTACT)
    calls.get(timeout=PATIENCE)


def test_what_others_do_is_not_told(host: Filter, watch: RulesWatch, calls: queue.Queue[None]) -> None:
    watch.start()
    for count in range(1, 5):
        host.watched(count)
        host.set(dict(INTACT))
    host.watched(5)
    assert calls.empty()


def test_what_happened_without_a_helper_is_told_when_there_is_one(
    host: Filter, watch: RulesWatch, calls: queue.Queue[None]
) -> None:
    watch.start()
    host.watched(1)
    host.refusals = 3
    host.shown = ShownRules(generation=9, rules=FLUSHED, blockers=())
    host.lose()
    calls.get(timeout=PATIENCE)
    assert len(host.clients) == 2 and host.clients[0].closed and host.refusals == 0


def test_it_stops_while_an_answer_is_waited_for(host: Filter, watch: RulesWatch) -> None:
    watch.start()
    watch.start()
    host.watched(1)
    watch.stop()
    watch.stop()
    assert host.clients[0].closed and not watch._thread.is_alive()
    watch.start()
    assert len(host.clients) == 1


def test_it_stops_while_there_is_no_helper(host: Filter, monkeypatch: pytest.MonkeyPatch, watch: RulesWatch) -> None:
    monkeypatch.setattr(rules_watch, "_AGAIN_FIRST", 10 * PATIENCE)
    slow = RulesWatch(host.connect, INSTALL, lambda: None)  # type: ignore[arg-type]  # as above
    host.refusals = 1_000_000
    slow.start()
    slow.stop()
    assert not slow._thread.is_alive()


def test_one_that_was_never_started_stops(watch: RulesWatch) -> None:
    watch.stop()


def test_who_is_told_may_fail(host: Filter, watch: RulesWatch, calls: queue.Queue[None]) -> None:
    seen: list[object] = []
    told = iter([ValueError("first"), None])

    def changed() -> None:
        problem = next(told)
        calls.put(None)
        if problem is not None:
            raise problem

    watch._changed = changed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.excepthook", lambda *problem: seen.append(problem[1]))
        watch.start()
        host.watched(1)
        host.set(FLUSHED)
        calls.get(timeout=PATIENCE)
        host.watched(2)
        host.set(INTACT)
        calls.get(timeout=PATIENCE)
    assert [str(problem) for problem in seen] == ["first"]
