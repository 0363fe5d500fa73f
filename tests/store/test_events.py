"""The event log: in order, bounded, and readable while others write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.store import events as module
from reconciler.store.db import Database
from reconciler.store.events import EventLog
from tests.fakes.clock import FakeClock


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "banger.db", create=True)
    yield made
    made.close()


@pytest.fixture
def log(database: Database) -> EventLog:
    return EventLog(database, FakeClock(7.0))


def add(log: EventLog, *words: str, environment: str = "env") -> list[int]:
    return [log.append(environment, "vm/dev", "Started", word).id for word in words]


def test_what_is_appended_is_what_is_read(log: EventLog) -> None:
    first = log.append("env", "vm/dev", "Started", "start vm dev", operation="op")
    second = log.append("env", "vm/dev", "Failed", "stop vm dev: no", warning=True)
    assert (first.at, first.operation, first.warning, second.warning) == (7.0, "op", False, True)
    assert log.read() == [first, second] == log.newest_of("env", 10)
    assert log.newest() == second.id > first.id


def test_a_reader_gets_what_comes_after_what_it_has(log: EventLog) -> None:
    assert log.newest() == 0 and log.read() == []
    ids = add(log, "a", "b") + add(log, "x", environment="other") + add(log, "c")
    assert [e.message for e in log.read(after=ids[0])] == ["b", "x", "c"]
    assert [e.message for e in log.read(environment="env", after=ids[0])] == ["b", "c"]
    assert [e.message for e in log.read(environment="env", limit=2)] == ["a", "b"]
    assert [e.message for e in log.newest_of("env", 2)] == ["b", "c"]
    assert [e.message for e in log.newest_of(None, 2)] == ["x", "c"]
    assert log.read(environment="nobody") == []


def test_only_the_newest_are_kept_and_no_id_comes_twice(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    ids = add(log, *"abcde")
    assert [e.message for e in log.read()] == ["c", "d", "e"]
    database.execute("DELETE FROM events")
    assert add(log, "f")[0] > ids[-1]


def test_an_event_of_a_transaction_that_fails_never_was(database: Database, log: EventLog) -> None:
    with pytest.raises(RuntimeError), database.transaction():
        add(log, "a")
        raise RuntimeError
    assert log.read() == []
