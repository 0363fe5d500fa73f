"""Every command runs through its real entry point, in an empty folder, against a fake service."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from reconciler.cli import target, wire
from reconciler.cli.main import cli
from tests.fakes.service import FakeService, desired

Run = Callable[..., Result]

SPEC = "apiVersion: banger/v1\nname: demo\n"


@pytest.fixture(autouse=True)
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BANGER_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BANGER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(target, "SYSTEM_SPEC", tmp_path / "etc" / "banger.yaml")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    fake = FakeService()
    monkeypatch.setattr(wire, "connect", lambda: fake)
    yield fake


@pytest.fixture
def run(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(sys, "argv", ["a test"])  # `python -m pytest` has one that banger would take for its own

    def call(*args: str, **more: object) -> Result:
        return CliRunner().invoke(cli, list(args), prog_name="banger", catch_exceptions=False, **more)  # type: ignore[arg-type]

    return call


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A ./banger.yaml, and a loader that answers with the same state whatever is in it. `settings` is what it got."""
    Path("banger.yaml").write_text(SPEC)
    seen = SimpleNamespace(digest="d" * 64, settings=None, path=None)

    def load(given: Path | None, settings: dict[str, str], *, heed_lock: bool = True) -> SimpleNamespace:
        seen.settings, seen.path = dict(settings), target.spec_file(given)
        return SimpleNamespace(desired=desired(), digest=seen.digest, path=seen.path, catalogs={})

    monkeypatch.setattr(target, "load", load)
    return seen
