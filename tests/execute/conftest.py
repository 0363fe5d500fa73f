"""Tools on a real state directory, without anything behind them that runs a VM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.execute.boots import BootGate
from reconciler.execute.tools import Tools
from reconciler.lib import cancel
from reconciler.lib.paths import Paths
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal
from tests.fakes.backend import TCG, FakeBackend
from tests.fakes.clock import FakeClock
from tests.fakes.helper import FakeHelper

OpenTools = Callable[[Path], "Iterator[Tools]"]


@contextmanager
def open_tools(home: Path) -> Iterator[Tools]:
    """Tools for the state directory below `home`, with a database of their own."""
    paths = Paths.discover({"BANGER_HOME": str(home)})
    database = Database(paths.database, create=True)
    clock = FakeClock()
    helper = FakeHelper()
    try:
        yield Tools(
            environment="env",
            paths=paths,
            inventory=Inventory(database),
            journal=Journal(database, clock, "operation"),
            clock=clock,
            backend=FakeBackend(),
            accelerator=lambda vmlinux: TCG,
            boots=BootGate(clock, settle=lambda vmm, clock, limit: None),
            helper=lambda: helper,  # type: ignore[arg-type,return-value]  # has a client's calls
        )
    finally:
        database.close()


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Tools]:
    with open_tools(tmp_path / "home") as made:
        yield made
    cancel.reset()
