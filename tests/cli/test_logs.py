"""`banger logs`: what is kept of a console, since when, and a guest's own journal."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.api.service import Channel, WayIn
from reconciler.cli import journal, logreading, wire
from reconciler.cli.commands.logs import Moment
from reconciler.lib import logfile
from reconciler.model.guestline import BUSYBOX
from tests.cli.conftest import Run
from tests.cli.test_process import on_a_terminal, start
from tests.fakes.service import FakeService

BLOCK = 1 << 16
LINE = b"x" * 63 + b"\n"


@pytest.fixture
def log(service: FakeService) -> Path:
    service.log = Path("console.log")
    return service.log


def punched(log: Path) -> bytes:
    """A log of which the older half is gone; returns what is left of whole lines."""
    log.write_bytes((b"old" + LINE) * (8 * BLOCK // 67) + b"the end\n")
    size = log.stat().st_size
    assert logfile.bound(log, keep=BLOCK, most=2 * BLOCK)
    whole = log.read_bytes()[logfile.beginning(os.open(log, os.O_RDONLY)) :]
    assert size > 2 * len(whole)
    return whole[whole.index(b"\n") + 1 :]


def test_what_is_left_is_shown_from_a_whole_line_on(run: Run, log: Path) -> None:
    left = punched(log)
    result = run("logs", "dev")
    assert result.stdout_bytes.lstrip(b"\0") == left
    assert "older is gone" in result.stderr
    short = run("logs", "-n", "1", "dev")
    assert (short.stdout_bytes, short.stderr) == (b"the end\n", "")
    assert run("logs", "-n", "1000000", "dev").stdout_bytes == result.stdout_bytes


def test_since_shows_what_came_later(run: Run, log: Path) -> None:
    log.write_bytes(b"first\nsecond\nthird\n")
    now = time.time()
    logfile.times(log).write_text(f"{now - 7200} 6\n{now - 3600} 13\n{now - 10} 19\n")
    assert run("logs", "--since", "3h", "dev").stdout_bytes == b"first\nsecond\nthird\n"
    assert run("logs", "--since", "90m", "dev").stdout_bytes == b"second\nthird\n"
    assert run("logs", "--since", "20m", "dev").stdout_bytes == b"third\n"
    assert run("logs", "--since", "90m", "-n", "1", "dev").stdout_bytes == b"third\n"
    assert run("logs", "--since", "5s", "dev").stdout_bytes == b""
    moment = datetime.fromtimestamp(now - 1800, UTC).isoformat()
    assert run("logs", "--since", moment, "dev").stdout_bytes == b"third\n"


def test_without_times_nothing_is_left_out_and_that_is_said(run: Run, log: Path) -> None:
    log.write_bytes(b"first\n")
    result = run("logs", "--since", "1s", "dev")
    assert (result.stdout_bytes, "not recorded" in result.stderr) == (b"first\n", True)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10x", "2026-13-01", "25:00", "0001-01-01", "9" * 40])
def test_what_is_no_time_is_refused_with_what_would_be_one(run: Run, text: str) -> None:
    result = run("logs", "--since", text, "dev")
    assert (result.exit_code, "such as 10m" in result.stderr) == (2, True)


def test_times_are_local_unless_they_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        read = Moment().convert
        assert read("2026-01-31T12:00:00", None, None) == read("2026-01-31T03:00:00Z", None, None)
        today = datetime.now().astimezone().replace(hour=9, minute=30, second=0, microsecond=0)
        assert read("09:30", None, None) == today.timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_following_goes_on_where_older_output_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"begin\n")

    def more_than_is_kept() -> None:
        with path.open("ab") as file:
            file.write(LINE * (8 * BLOCK // 64))
        assert logfile.bound(path, keep=BLOCK, most=2 * BLOCK)

    def more() -> None:
        with path.open("ab") as file:
            file.write(b"end\n")

    steps = iter([more_than_is_kept, more])

    def instead_of_sleeping(seconds: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(logreading.time, "sleep", instead_of_sleeping)
    seen = b""
    with path.open("rb") as log, pytest.raises(KeyboardInterrupt):
        for block in logreading.follow_blocks(log, path):
            seen += block
    assert seen.startswith(b"begin\n") and seen.endswith(LINE + b"end\n")
    assert len(seen) < 3 * BLOCK


def test_ctrl_c_ends_following_without_a_word(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"hello\n")
    child = start(f"from pathlib import Path\nfake.log = Path({str(log)!r})\nmain()", "logs", "-f", "dev")
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == b"hello\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err.strip()) == (130, b"", b"")


@pytest.mark.parametrize("more", [("--journal",), ("--since", "1h")])
def test_provision_has_no_times(run: Run, more: tuple[str, ...]) -> None:
    assert run("logs", "--provision", *more, "dev").exit_code == 2


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(journal.joining, "join", lambda way: (["/usr/bin/ssh"], None))
    monkeypatch.setattr(journal.guestrun, "over_ssh", lambda entry, words: seen.append(("ssh", words)) or 0)

    def by_agent(way: WayIn, words: list[str], **more: Any) -> int:
        seen.append(("agent", words))
        return 127

    monkeypatch.setattr(wire, "run_by_agent", by_agent)
    return seen


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), []),
        (("-n", "5"), ["--lines=5"]),
        (("-f",), ["--follow", "--no-tail"]),
        (("-f", "-n", "0"), ["--lines=0", "--follow"]),
        (("--since", "10m"), ["--since=-600s"]),
    ],
)
def test_the_journal_is_read_in_the_guest(
    run: Run, service: FakeService, ran: list[tuple[str, list[str]]], args: tuple[str, ...], words: list[str]
) -> None:
    assert run("logs", "--journal", *args, "dev").exit_code == 0
    assert service.calls[-1] == ("way_in", "demo/dev", "root")
    ((how, line),) = ran
    assert (how, line[:3], line[5:]) == ("ssh", [BUSYBOX, "sh", "-c"], ["--no-pager", "--all", *words])


def test_a_guest_without_a_journal_is_told_from_a_failure(
    run: Run, service: FakeService, ran: list[tuple[str, list[str]]]
) -> None:
    service.way = dataclasses.replace(service.way, channel=Channel.AGENT)
    result = run("logs", "--journal", "dev")
    assert (result.exit_code, ran[0][0]) == (1, "agent")
    assert "demo/dev keeps no journal" in result.stderr and "banger logs demo/dev" in result.stderr


def test_a_journal_cannot_take_over_a_terminal() -> None:
    code = """
import os
from reconciler.cli import journal
journal.joining.join = lambda way: ([], None)
journal.guestrun.over_ssh = lambda entry, words: os.write(1, b"\\x1b]0;title\\x07ok\\n") and 3
main()
"""
    assert on_a_terminal(code, "logs", "--journal", "dev") == (3, "^[]0;title^Gok\n")
