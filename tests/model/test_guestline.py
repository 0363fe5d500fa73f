"""What a guest's shell is told, tried on this host's shells."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from reconciler.model import guestline
from reconciler.model.guestline import quote, run_line

WORDS = ["", " ", "it's", '"', "$HOME", "`id`", "a;b", "*", "\n", "-n", "ü", "\\", "''", "!x", "a=b"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("word", WORDS)
def test_words_arrive_exactly(shell: str, word: str) -> None:
    line = run_line(["printf", "%s|", word, "end"], "m", env={"A": word}, cwd="/")
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == f"{word}|end|"
    line = run_line(["sh", "-c", 'printf %s "$A"'], "m", env={"A": word})
    assert subprocess.run([shell, "-c", line], capture_output=True, check=True).stdout.decode() == word


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 254, 255])
def test_exit_codes_pass(shell: str, code: int) -> None:
    assert subprocess.run([shell, "-c", run_line(["sh", "-c", f"exit {code}"], "m")], check=False).returncode == code


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_signal_is_128_and_its_number_and_nobody_talks_about_it(shell: str) -> None:
    done = subprocess.run(
        [shell, "-c", run_line(["sh", "-c", "echo me >&2; kill -9 $$"], "m")], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (137, b"me\n")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", run_line(["true"], "m", cwd=str(tmp_path / "none"))], capture_output=True, check=False
    )
    assert done.returncode == 126 and b"none" in done.stderr


def test_a_signal_finds_the_command_and_its_children_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestline, "BUSYBOX", "busybox")
    script = "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    mine = subprocess.Popen(["sh", "-c", run_line(["sh", "-c", script], "mark1")], stdout=subprocess.PIPE)
    other = subprocess.Popen(["env", f"{guestline.MARK}=mark12", "sleep", "60"])
    assert mine.stdout is not None and mine.stdout.readline() == b"up\n"
    assert subprocess.run(["sh", "-c", guestline.signal_line("mark1", signal.SIGTERM)], check=False).returncode == 0
    assert (mine.stdout.read(), mine.wait()) == (b"got\n", 9)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_quote_is_the_shells() -> None:
    assert quote("it's") == "'it'\"'\"'s'"
