"""A cancellation that comes while a child is being started ends that child too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.lib import run as doors
from reconciler.lib.errors import CancelledError


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    doors.reset_cancel()


@pytest.mark.parametrize("call", [doors.run, lambda argv: doors.pipeline([argv])], ids=["run", "pipeline"])
def test_a_child_that_was_just_started_is_ended(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[list[str]], object]
) -> None:
    real = subprocess.Popen

    def start(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        child = real(*args, **more)
        doors.cancel_all()  # knows nothing of it yet
        return child

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(CancelledError):
        call(["sleep", "1000"])
