"""One event is one line, whatever is in it."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import pytest

from reconciler.lib.log import Format, Log, format_of

NOON = 1_700_000_000.25
STAMP = "2023-11-14T22:13:20.250Z"
HOSTILE = 'a\nREADY\r\x1b[2Jb\x00\x7f\x85\u2028\u202e\ud800"c" d=1\\'


def written(form: Format, *, level: str = "info", message: str = "started", **fields: object) -> str:
    stream = io.StringIO()
    getattr(Log(stream, form, clock=lambda: NOON), level)(message, **fields)
    return stream.getvalue()


def test_a_line_for_people() -> None:
    line = written(Format.HUMAN, environment="demo", object="vm/dev", reason="it is not running", attempt=2)
    assert line == f'{STAMP} info    started environment=demo object=vm/dev reason="it is not running" attempt=2\n'


def test_a_line_for_programs() -> None:
    line = written(Format.JSON, level="warning", environment="demo", seconds=1.5, ready=True, file=Path("/x"))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": STAMP,
        "level": "warning",
        "message": "started",
        "environment": "demo",
        "seconds": 1.5,
        "ready": True,
        "file": "/x",
    }


@pytest.mark.parametrize(("level", "priority"), [("error", "<3>{"), ("warning", "<4>{"), ("info", "<6>{")])
def test_the_journal_gets_the_priority(level: str, priority: str) -> None:
    line = written(Format.JOURNAL, level=level)
    assert line.startswith(priority)
    assert json.loads(line[3:])["level"] == level


@pytest.mark.parametrize("form", Format)
def test_hostile_words_stay_in_their_line(form: Format) -> None:
    line = written(form, message=HOSTILE, object=HOSTILE)
    assert line[:-1].isprintable()
    assert line.count("\n") == 1


def test_hostile_words_survive_for_programs() -> None:
    event = json.loads(written(Format.JSON, message=HOSTILE, object=HOSTILE))
    assert event["message"] == event["object"] == HOSTILE


def test_a_value_cannot_pose_as_another_field() -> None:
    assert written(Format.HUMAN, object='x" level="error').endswith(r' object="x\" level=\"error"' + "\n")
    assert written(Format.HUMAN, object="x\\", level_="y z").endswith(r' object="x\\" level_="y z"' + "\n")


def test_a_field_cannot_replace_what_every_event_has() -> None:
    stream = io.StringIO()
    Log(stream, Format.JSON, clock=lambda: NOON).bind(time="never", level="error").info("x", message="y")
    assert json.loads(stream.getvalue()) == {"time": STAMP, "level": "info", "message": "x"}


def test_empty_fields_are_left_out() -> None:
    assert set(json.loads(written(Format.JSON, hint=None, object="", count=0))) == {"time", "level", "message", "count"}


def test_numbers_that_json_has_not() -> None:
    assert json.loads(written(Format.JSON, seconds=float("nan")))["seconds"] == "nan"


@pytest.mark.parametrize("form", Format)
def test_the_journal_does_not_cut_a_line(form: Format) -> None:
    assert len(written(form, message="\U0001f600" * 100_000).encode()) < 48 * 1024


def test_bound_fields_stay_with_their_log() -> None:
    stream = io.StringIO()
    log = Log(stream, Format.JSON)
    bound = log.bind(operation="4f", environment="demo").bind(object="vm/dev")
    bound.info("one", environment="other")
    log.info("two")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["operation"], first["environment"], first["object"]) == ("4f", "other", "vm/dev")
    assert set(second) == {"time", "level", "message"}


def test_lines_of_threads_do_not_mix() -> None:
    class Slow(io.StringIO):
        """A stream in whose first write a second could begin."""

        inside = 0

        def write(self, text: str) -> int:
            self.inside += 1
            entered.append(self.inside)
            if len(entered) == 1:
                other.start()
                began.wait(5)
                other.join(0.2)
            self.inside -= 1
            return super().write(text)

    def second() -> None:
        began.set()
        log.info("second")

    entered: list[int] = []
    began, other = threading.Event(), threading.Thread(target=second)
    stream = Slow()
    log = Log(stream, Format.JSON)
    log.bind(n=1).info("first")
    other.join()
    assert entered == [1, 1]
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["first", "second"]


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), ValueError("closed")])
def test_a_log_that_cannot_be_written_stops_nobody(problem: Exception) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise problem

    Log(Full()).error("x")


def test_the_journal_is_recognised_by_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "redirected").open("w") as redirected:
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert [format_of(wanted, journal) for wanted in ("auto", "json", "human")] == [
            Format.JOURNAL,
            Format.JOURNAL,
            Format.HUMAN,
        ]
        # The variable is inherited by a child whose stderr goes elsewhere.
        assert [format_of(wanted, redirected) for wanted in ("auto", "json")] == [Format.HUMAN, Format.JSON]
    assert format_of("auto", io.StringIO()) is Format.HUMAN


def test_the_variable_decides_for_whoever_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_LOG_FORMAT", "json")
    stream = io.StringIO()
    Log(stream).info("x")
    assert json.loads(stream.getvalue())["message"] == "x"
