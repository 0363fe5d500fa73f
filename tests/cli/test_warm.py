"""The short way of `banger exec`: taken only where the long one would do the same, and much lighter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli import target, warm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared connection of demo/dev, by a program that tells its arguments; there is a ./banger.yaml."""
    folder = tmp_path / "home" / "run" / "vms" / "demo" / "dev"
    folder.mkdir(parents=True)
    (folder / "socket").touch()
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    program.chmod(0o755)
    words = [str(folder / "socket"), str(program), "ssh", "-S", "there"]
    (folder / "ssh.entry").write_text("\0".join(words))
    Path("banger.yaml").write_text("name: demo\n")
    return folder / "ssh.entry"


@pytest.mark.parametrize("reference", ["dev", "demo/dev", "vm/dev", "vm/demo/dev"])
@pytest.mark.parametrize("words", [["--", "echo", "a b"], ["echo", "a b"]])
def test_it_runs(entry: Path, capfd: pytest.CaptureFixture[str], reference: str, words: list[str]) -> None:
    assert warm.attempt(["banger", "exec", reference, *words]) == 7
    said = capfd.readouterr().out
    assert said.startswith("-T|-S|there|") and "'echo' 'a b'" in said


@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        ["exec", "dev"],
        ["exec", "dev", "--"],
        ["exec", "--tty", "dev", "ls"],
        ["exec", "dev", "-x"],
        ["exec", "other", "ls"],
        ["exec", "../dev", "ls"],
        ["exec", "a/b/c", "ls"],
        ["exec", "other/dev", "ls"],
        ["exec", "", "ls"],
        ["--help"],
    ],
)
def test_what_is_not_plain_goes_the_long_way(entry: Path, words: list[str]) -> None:
    assert warm.attempt(["banger", *words]) is None


def test_variables_that_stand_for_options_do(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_USER", "me")
    assert warm.attempt(["banger", "exec", "dev", "ls"]) is None


def test_a_connection_that_ended_is_none(entry: Path) -> None:
    (entry.parent / "socket").unlink()
    assert warm.attempt(["banger", "exec", "dev", "ls"]) is None


def test_without_a_file_a_bare_name_is_the_inventory_s(entry: Path) -> None:
    Path("banger.yaml").unlink()
    assert warm.attempt(["banger", "exec", "dev", "ls"]) is None
    assert warm.attempt(["banger", "exec", "demo/dev", "ls"]) == 7


@pytest.mark.parametrize(
    "text",
    [
        "name: demo\n",
        "a: b\nname:   demo  \n# c\n",
        "name: demo\r\nvms: {}\r\n",
        "name: 'demo'\n",
        "name: demo # x\n",
        "name: demo\nname: other\n",
        '"name": other\nname: demo\n',
        "{name: demo}\n",
        "? name\n: other\nname: demo\n",
        "--- \nname: demo\n",
        "x: |\nname: demo\n",
        "name: ${who}\n",
        "name:\n",
        " name: demo\n",
        "",
        "\ufeffname: demo\n",
    ],
)
def test_a_name_is_what_the_long_way_reads_or_nothing(text: str) -> None:
    Path("banger.yaml").write_text(text)
    found = warm.plain_name()
    assert not found or found == target.plain_name(text.replace("\r\n", "\n"))


def test_it_loads_next_to_nothing(entry: Path) -> None:
    code = "import sys; from reconciler.cli import warm; print(warm.attempt(['banger', 'exec', 'dev', 'ls'])); "
    code += "print(*sorted(sys.modules), file=sys.stderr)"
    env = {"BANGER_HOME": str(entry.parents[4]), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("7\n")
    loaded = set(done.stderr.split())
    assert not loaded & {"click", "pathlib", "dataclasses", "subprocess", "json", "re", "socket", "sqlite3"}
