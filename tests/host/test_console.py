"""A VM's serial console: its log is followed through all that happens to it, and a terminal is attached to it.

One small VM lives through this whole file.
"""

from __future__ import annotations

import os
import pty
import secrets
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.lib import logfile
from tests.host.conftest import Artifacts
from tests.host.home import Home

pytestmark = pytest.mark.host

PATIENCE = 120.0
DETACH = b"\x1d"


@pytest.fixture(scope="module")
def home(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("console"), artifact_cache.cache, f"t{secrets.token_hex(3)}")
    made.write({"dev": {"image": "small", "network": "none", "ready": {"timeout": "300s"}}})
    made.run("apply")
    yield made
    made.destroy()
    assert made.vmms() == {}
    until(lambda: keepers(made) == [])


def until(condition: Callable[[], object]) -> None:
    """What other processes do can only be looked for."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def keepers(home: Home) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(home.root / "run" / "consoles.lock").encode() in words:
                found.append(int(entry.name))
    return found


def console_log(home: Home) -> Path:
    return home.root / "state" / "vms" / home.environment / "dev" / "console.log"


def say(home: Home, words: str) -> None:
    """Has the guest say it, and returns when it is in the log: a serial line takes its time."""
    home.run("exec", "dev", "--", "sh", "-c", f"echo {words} >/dev/console")
    until(lambda: words.encode() in console_log(home).read_bytes())


def test_a_log_is_followed_through_rotation_and_restarts(home: Home) -> None:
    log = console_log(home)
    seen = b""
    with subprocess.Popen(
        home.argv("logs", "-f", "dev"), env=home.env, cwd=home.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as follower:
        assert follower.stdout is not None
        fd = follower.stdout.fileno()

        def follows(words: bytes) -> None:
            nonlocal seen
            while words not in seen:
                assert select.select([fd], [], [], PATIENCE)[0], seen[-500:]
                more = os.read(fd, 1 << 16)
                assert more, "it has ended"
                seen += more

        say(home, "mark one")
        follows(b"mark one")
        home.run(
            "exec", "dev", "--", "sh", "-c", "yes noise | head -c 65536 >/dev/console; echo mark two >/dev/console"
        )
        follows(b"mark two")
        length = log.stat().st_size
        # As the keeper does with far more; QEMU has the file open, and is told nothing.
        assert logfile.bound(log, keep=8192, most=16384)
        say(home, "mark three")
        follows(b"mark three")
        assert log.stat().st_size > length
        assert log.stat().st_blocks * 512 < 32768
        home.run("vm", "restart", "dev")
        say(home, "mark four")
        follows(b"mark four")
        assert seen.count(b"-- start at ") == 2
        assert b"\0" not in seen
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE) == 130
    shown = home.run("logs", "dev").stdout
    assert "mark one" not in shown and "mark two" in shown and "mark four" in shown and "\0" not in shown


def test_since_a_moment_what_came_later_is_shown(home: Home) -> None:
    log = console_log(home)
    say(home, "mark early")
    until(lambda: (logfile.since(log, time.time()) or 0) == log.stat().st_size)
    between = time.time()
    say(home, "mark late")
    moment = datetime.fromtimestamp(between, UTC).isoformat()
    shown = home.run("logs", "--since", moment, "dev").stdout
    assert "mark late" in shown and "mark early" not in shown
    assert "mark early" in home.run("logs", "--since", "1h", "dev").stdout


def test_without_a_journal_it_is_said(home: Home) -> None:
    done = home.run("logs", "--journal", "dev", check=False)
    assert (done.returncode, "keeps no journal" in done.stderr) == (1, True)


def test_a_keeper_that_was_killed_is_back_with_the_next_change(home: Home) -> None:
    [pid] = keepers(home)
    os.kill(pid, signal.SIGKILL)
    until(lambda: keepers(home) == [])
    home.run("apply")
    until(lambda: len(keepers(home)) == 1)
    say(home, "mark kept")
    until(lambda: (logfile.since(console_log(home), time.time()) or 0) == console_log(home).stat().st_size)


@contextmanager
def attached(home: Home) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """A terminal with `banger console` on it: the person's end, the program's end, and the program."""
    person, terminal = pty.openpty()
    try:
        ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        argv = home.argv("console", "dev")
        with subprocess.Popen(argv, env=home.env, cwd=home.root, start_new_session=True, **ends) as child:  # type: ignore[call-overload]
            read_until(person, b"attached to")
            yield person, terminal, child
            child.kill()
    finally:
        os.close(person)
        os.close(terminal)


def read_until(person: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        assert select.select([person], [], [], PATIENCE)[0], seen
        seen += os.read(person, 1 << 16)
    return seen


def test_a_terminal_is_attached_and_detached(home: Home) -> None:
    with attached(home) as (person, terminal, child):
        say(home, "mark shown")
        read_until(person, b"mark shown")
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        reader = home.argv(
            "exec", "dev", "--", "sh", "-c", "echo asking >/dev/console; read line </dev/console; echo $line"
        )
        with subprocess.Popen(
            reader, env=home.env, cwd=home.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as asked:
            read_until(person, b"asking")
            os.write(person, b"typed words\r")
            assert asked.communicate(timeout=PATIENCE)[0] == b"typed words\n"
        os.write(person, DETACH)
        assert child.wait(PATIENCE) == 0
        assert termios.tcgetattr(terminal)[3] & termios.ECHO
    with attached(home):
        pass  # there is room again


def test_the_second_one_is_told_who_is_the_first(home: Home) -> None:
    with attached(home) as (_, _, child):
        person, terminal = pty.openpty()
        ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        second = subprocess.Popen(
            home.argv("console", "dev"), env=home.env, cwd=home.root, start_new_session=True, **ends
        )  # type: ignore[call-overload]
        assert f"in process {child.pid}".encode() in read_until(person, b"hint")
        assert second.wait(PATIENCE) == 1
        os.close(person)
        os.close(terminal)


def test_stopping_the_vm_ends_the_console_and_restores_the_terminal(home: Home) -> None:
    with attached(home) as (person, terminal, child):
        home.run("vm", "stop", "dev")
        assert b"has ended" in read_until(person, b"has ended")
        assert child.wait(PATIENCE) == 0
        assert termios.tcgetattr(terminal)[3] & termios.ECHO
    refused = home.run("console", "dev", check=False)
    assert (refused.returncode, "needs a terminal" in refused.stderr) == (2, True)
