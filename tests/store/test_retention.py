"""Pins, and how much went within a day, on either side of now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model.retention import DAY, EntryKind
from reconciler.store.db import Database
from reconciler.store.retention import Pin, RetentionState

NOW = 1_700_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[RetentionState]:
    database = Database(tmp_path / "banger.db", create=True)
    yield RetentionState(database)
    database.close()


def test_an_entry_is_pinned_once_and_unpinned_once(state: RetentionState) -> None:
    assert state.pin(EntryKind.IMAGE, "b", 1.0) and not state.pin(EntryKind.IMAGE, "b", 2.0)
    assert state.pin(EntryKind.BLOB, "a", 3.0)
    blob, image = Pin(kind=EntryKind.BLOB, name="a", at=3.0), Pin(kind=EntryKind.IMAGE, name="b", at=1.0)
    assert state.pins() == [blob, image]
    assert state.unpin(EntryKind.IMAGE, "b") and not state.unpin(EntryKind.IMAGE, "b")
    assert state.pins() == [blob]


def test_what_went_counts_for_a_day(state: RetentionState) -> None:
    state.spend(EntryKind.IMAGE, 5, NOW)
    state.spend(EntryKind.IMAGE, -2, NOW + 10)
    state.spend(EntryKind.BLOB, 7, NOW + DAY / 2)
    assert state.spent(NOW + 20) == {"image": 3, "blob": 7}
    assert state.spent(NOW + DAY + 11) == {"blob": 7}
    assert state.spent(NOW + 3650 * DAY) == {}


def test_a_clock_that_was_set_back_forgets_neither_at_once_nor_never(state: RetentionState) -> None:
    state.spend(EntryKind.IMAGE, 5, NOW)
    assert state.spent(NOW - 60) == {"image": 5}
    assert state.spent(NOW - 2 * DAY) == {}
