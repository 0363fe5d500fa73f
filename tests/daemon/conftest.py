"""A host for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.lib import cancel
from tests.fakes.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path / "home", monkeypatch)
    yield made
    made.service.close()
    cancel.reset()
