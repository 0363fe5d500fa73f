"""What a watched file's content does to its environment, and what it never does (I2)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.daemon.engine import Engine
from reconciler.daemon.specs import Specs
from reconciler.lib.log import Format, Log
from reconciler.lib.paths import Paths
from reconciler.sources.file import Content
from reconciler.store.control import ControlState, SourceRow
from reconciler.store.events import EventLog
from tests.fakes.clock import FakeClock

GOOD = b"""apiVersion: banger/v1
name: demo
kernels: {debian: {debian: {suite: bookworm}}}
images: {base: {debian: {suite: bookworm}, kernel: debian}}
vms: {dev: {image: base}}
"""
FILE = Path("/somewhere/banger.yaml")


class Watched:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.adopted: list[str] = []
        self.told = 0
        self.log = io.StringIO()
        self.restart()

    def restart(self) -> None:
        """Another controller, which knows what the one before it wrote."""
        self.specs = Specs(self.engine, Log(self.log, Format.HUMAN), self.adopted.append, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def save(self, data: bytes | None, path: Path = FILE, problem: str | None = None) -> None:
        digest = hashlib.sha256(data).hexdigest() if data is not None else None
        self.specs.take(Content(path=path, data=data, problem=problem, digest=digest))

    def generation(self, environment: str = "demo") -> int:
        row = self.engine.inventory().environment(environment)
        return row.generation if row is not None else 0

    def sources(self) -> list[SourceRow]:
        return ControlState(self.engine.database).sources()

    def reasons(self) -> list[str]:
        return [event.reason for event in EventLog(self.engine.database, self.engine.clock).read()]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    engine = Engine(Paths.discover({"BANGER_HOME": str(tmp_path)}), FakeClock())
    with engine.writing(lambda message: None):
        yield Watched(engine)
    engine.close()


def test_a_good_file_is_a_new_generation_and_the_same_meaning_is_none(watched: Watched) -> None:
    watched.save(GOOD)
    assert watched.generation() == 1
    watched.save(b"# a comment\n" + GOOD)
    assert watched.generation() == 1
    watched.save(GOOD.replace(b"dev:", b"web:"))
    assert watched.generation() == 2
    assert watched.adopted == ["demo"] * 3
    assert watched.reasons() == ["Edited", "Edited"]
    assert watched.sources() == [
        SourceRow(path=str(FILE), environment="demo", problem=None, since=watched.sources()[0].since)
    ]


@pytest.mark.parametrize(
    ("data", "problem", "words"),
    [
        (b"", None, "banger.yaml"),
        (GOOD[: len(GOOD) // 2], None, "banger.yaml"),
        (GOOD.replace(b"image: base", b"imag: base"), None, "banger.yaml:5:13: vms.dev"),
        (None, "is missing", "/somewhere/banger.yaml is missing"),
    ],
)
def test_what_is_no_good_file_keeps_the_last_good_generation(
    watched: Watched, data: bytes | None, problem: str | None, words: str
) -> None:
    """I2."""
    watched.save(GOOD)
    before = watched.engine.inventory().environment("demo")
    watched.save(data, problem=problem)
    assert watched.engine.inventory().environment("demo") == before
    (source,) = watched.sources()
    assert source.environment == "demo" and source.problem is not None and words in source.problem
    assert watched.reasons()[-1] == "InvalidSpec"
    told = len(watched.reasons())
    watched.save(data, problem=problem)
    assert len(watched.reasons()) == told, "the same problem is told once"
    watched.save(GOOD)
    assert watched.sources()[0].problem is None and watched.generation() == 1


def test_a_file_that_never_was_good_makes_nothing(watched: Watched) -> None:
    watched.save(b"name: [")
    assert watched.engine.inventory().environment_names() == []
    assert watched.sources()[0].environment is None
    assert watched.adopted == []


def test_two_files_cannot_describe_one_environment(watched: Watched) -> None:
    other = Path("/somewhere/other.yaml")
    watched.save(GOOD)
    watched.save(GOOD.replace(b"dev:", b"web:"), other)
    assert watched.generation() == 1
    problems = {row.path: row.problem for row in watched.sources()}
    assert problems[str(FILE)] is None
    assert "environment demo is what /somewhere/banger.yaml describes" in str(problems[str(other)])


def test_a_file_that_was_renamed_takes_its_environment_along(watched: Watched) -> None:
    """The name that is watched no more has no say in a new controller."""
    moved = Path("/somewhere/moved.yaml")
    watched.save(GOOD)
    watched.restart()
    watched.save(GOOD, moved)
    assert watched.specs.keeper("demo") == moved
    assert watched.generation() == 1


def test_an_environment_that_its_file_no_longer_describes_stays(watched: Watched) -> None:
    watched.save(GOOD)
    watched.save(GOOD.replace(b"name: demo", b"name: other"))
    assert watched.engine.inventory().environment_names() == ["demo", "other"]
    assert watched.specs.keeper("demo") is None
    assert "Orphaned" in watched.reasons()


def test_a_restarted_controller_writes_nothing_for_an_unchanged_file(watched: Watched) -> None:
    """I5."""
    watched.save(GOOD)
    watched.restart()
    before = (watched.reasons(), watched.sources(), watched.engine.inventory().environment("demo"))
    watched.save(GOOD)
    assert (watched.reasons(), watched.sources(), watched.engine.inventory().environment("demo")) == before
    assert watched.adopted == ["demo", "demo"]


def test_a_file_that_is_gone_claims_nothing_and_a_broken_one_does(watched: Watched) -> None:
    watched.save(GOOD)
    watched.restart()
    watched.save(b"name: [")
    assert watched.specs.keeper("demo") == FILE
    watched.save(None, problem="is missing")
    assert watched.specs.keeper("demo") is None
    assert watched.engine.inventory().environment_names() == ["demo"]
