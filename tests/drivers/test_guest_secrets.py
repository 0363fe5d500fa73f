"""Secrets: read where they stand, told by their reference only, remembered by a keyed hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.drivers.guest import secrets
from reconciler.lib import run
from reconciler.lib.errors import BangerError
from reconciler.model.inside import Secret

KEY = b"k" * 32


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_withheld", set())
    secrets._remembered.clear()


def test_each_source_gives_its_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CI_TOKEN", "hunter2")
    (tmp_path / "file").write_bytes(b"\0binary\n")
    assert secrets.read(Secret(name="A", env="CI_TOKEN")) == b"hunter2"
    assert secrets.read(Secret(name="B", file=str(tmp_path / "file"))) == b"\0binary\n"
    assert secrets.read(Secret(name="C", command=("printf", "%s", "x y"))) == b"x y"


def test_a_variable_that_holds_one_reaches_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_TOKEN", "hunter2")
    monkeypatch.setenv("OTHER", "x")
    secrets.read(Secret(name="A", env="CI_TOKEN"))
    environment = run.run(["env"]).stdout.decode().splitlines()
    assert "OTHER=x" in environment and "hunter2" not in "".join(environment)
    assert os.environ["CI_TOKEN"] == "hunter2"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (
            Secret(name="A", env="NOT_SET_ANYWHERE"),
            "secret A: the variable NOT_SET_ANYWHERE is not set where banger runs",
        ),
        (Secret(name="A", env="EMPTY"), "secret A: the variable EMPTY is empty"),
        (Secret(name="A", file="/nowhere/x"), "secret A: the file /nowhere/x: No such file or directory"),
        (Secret(name="A", file="/"), "secret A: the file /: Is a directory"),
        (Secret(name="A", file="/dev/null"), "secret A: the file /dev/null is not a file"),
        (
            Secret(name="A", command=("no-such-program-here",)),
            "secret A: the command no-such-program-here is not installed",
        ),
        (Secret(name="A", command=("true",)), "secret A: the command true is empty"),
        (
            Secret(name="A", command=("sh", "-c", "echo hunter2; echo hunter2 >&2; exit 3")),
            "secret A: the command sh failed with exit code 3",
        ),
        (
            Secret(name="A", command=("head", "-c", "70000", "/dev/zero")),
            "secret A: the command head is longer than 64 KiB",
        ),
    ],
)
def test_what_is_not_there_is_told_by_its_reference(secret: Secret, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(BangerError) as caught:
        secrets.read(secret)
    assert caught.value.cause == why
    assert "hunter2" not in f"{caught.value.hint} {caught.value.replay} {caught.value.__cause__}"


def test_a_hash_tells_a_change_and_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret(name="A", env="CI_TOKEN")
    monkeypatch.setenv("CI_TOKEN", "hunter2")
    first = secrets.digest(secret, KEY)
    assert secrets.digest(secret, KEY) == first == secrets.hashed(b"hunter2", KEY)
    assert secrets.digest(secret, b"other") != first
    monkeypatch.setenv("CI_TOKEN", "hunter3")
    assert secrets.digest(secret, KEY) != first


def test_a_command_is_not_asked_at_each_look(tmp_path: Path) -> None:
    secret = Secret(name="A", command=("sh", "-c", f"echo x >>{tmp_path}/calls; echo value"))
    assert secrets.digest(secret, KEY) == secrets.digest(secret, KEY)
    assert (tmp_path / "calls").read_text() == "x\n"
    secrets.read(secret)
    assert (tmp_path / "calls").read_text() == "x\nx\n"


def test_the_key_is_made_once_and_is_nobody_else_s(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    before = secrets.key(path)
    assert before == secrets.key(path) and not path.exists()
    made = secrets.ensure_key(path)
    assert made == secrets.ensure_key(path) == secrets.key(path) != before
    assert path.stat().st_mode & 0o777 == 0o600 and len(made) == 32


def test_two_processes_without_a_key_have_no_hash_in_common() -> None:
    code = "from pathlib import Path; from reconciler.drivers.guest import secrets; print(secrets.key(Path('/nowhere/k')).hex())"
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 2
