"""The child in the foreground, and the signals that it is spared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from reconciler.lib import foreground, runtime
from reconciler.lib.paths import Paths


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137)])
def test_its_end_is_ours(script: str, code: int) -> None:
    assert foreground.run("/bin/sh", ["sh", "-c", script], on_signal=lambda number: None) == (code, None)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in foreground.FORWARDED]
    foreground.run("/bin/true", ["true"], on_signal=lambda number: None, timeout=5)
    assert [signal.getsignal(number) for number in foreground.FORWARDED] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_that_comes_while_the_child_starts_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    real = os.posix_spawn

    def spawn(*args: Any, **more: Any) -> int:
        child = real(*args, **more)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # a test runner has more threads
        return child

    monkeypatch.setattr(os, "posix_spawn", spawn)
    assert foreground.run("/bin/true", ["true"], on_signal=told.append) == (0, signal.SIGTERM)
    assert told == [signal.SIGTERM]


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OSError):
        foreground.run("/nonexistent", ["x"], on_signal=lambda number: None)


WAITS = """
import os, signal
from reconciler.lib import foreground
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever these tests were started by
def tell(number):
    os.write(1, f"told {number}\\n".encode())
code, last = foreground.run("/bin/sh", ["sh", "-c", "echo up; read line; echo slept; exit 5"], on_signal=tell)
print(code, int(last), flush=True)
"""


def test_what_a_terminal_sends_to_all_reaches_only_us() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdin is not None and child.stdout is not None
    said = child.stdout.readline()
    os.killpg(child.pid, signal.SIGINT)
    said += child.stdout.readline()
    child.stdin.write("go on\n")
    child.stdin.close()
    said += child.stdout.read()
    code = child.wait()
    assert (code, said) == (0, "up\ntold 2\nslept\n5 2\n")


def test_the_third_interrupt_ends_the_child() -> None:
    code = """
    import os
    from reconciler.lib import foreground
    def tell(number):
        os.write(1, b"told\\n")
    code, last = foreground.run("/bin/sh", ["sh", "-c", "echo up; exec sleep 1000"], on_signal=tell)
    print(code, int(last), flush=True)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "told\n"
    child.send_signal(signal.SIGINT)
    assert (child.stdout.read(), child.wait()) == ("143 2\n", 0)


def test_the_time_is_up_twice() -> None:
    told: list[int] = []
    stop = ["sh", "-c", "echo $$; exec sleep 1000"]

    def tell(number: int) -> None:
        told.append(number)
        if number == signal.SIGKILL:
            # The child of this very test: its group is ours, so it is found by its parent.
            found = subprocess.run(
                ["pgrep", "-P", str(os.getpid()), "-x", "sleep"], capture_output=True, text=True, check=False
            )
            for pid in found.stdout.split():
                os.kill(int(pid), signal.SIGKILL)

    code, last = foreground.run("/bin/sh", stop, on_signal=tell, timeout=0.1, grace=0.1)
    assert (code, last, told) == (137, foreground.TIMED_OUT, [signal.SIGTERM, signal.SIGKILL])


@pytest.mark.parametrize(
    "env",
    [
        {"BANGER_HOME": "/a/b"},
        {"BANGER_HOME": "relative"},
        {"RUNTIME_DIRECTORY": "/run/x:/run/y"},
        {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/h"},
        {"XDG_RUNTIME_DIR": "relative", "HOME": "/h"},
        {},
    ],
)
@pytest.mark.parametrize("uid", [0, 4711])
def test_the_runtime_folder_is_that_of_all_paths(env: dict[str, str], uid: int) -> None:
    assert runtime.folder(env, uid) == str(Paths.discover(env, uid).runtime)
