"""`banger cp`: which side is the VM, and what rsync is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reconciler.api.service import Channel
from reconciler.cli.commands import cp
from tests.cli.conftest import Run
from tests.fakes.service import FakeService


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of rsync, which succeeds."""
    seen: list[list[str]] = []
    monkeypatch.setattr(cp, "require", lambda program, package: f"/usr/bin/{program}")
    monkeypatch.setattr(cp.joining, "require", lambda program, package: f"/usr/bin/{program}")
    monkeypatch.setattr(cp, "interactive", lambda argv: seen.append(argv) or 0)
    return seen


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (("notes", "src", "dev:work/"), ["./notes", "./src", "127.0.0.1:work/"]),
        (("demo/dev:/var/log", "."), ["127.0.0.1:/var/log", "./."]),
        (("vm/dev:a", "dev:b c", "../x"), ["127.0.0.1:a", "127.0.0.1:b c", "../x"]),
        (("./a:b", "dev:"), ["./a:b", "127.0.0.1:."]),
        (("/a:b", "dev:x:y"), ["/a:b", "127.0.0.1:x:y"]),
    ],
)
def test_places(run: Run, copied: list[list[str]], words: tuple[str, ...], places: list[str]) -> None:
    assert run("cp", *words).exit_code == 0
    (argv,) = copied
    assert argv[argv.index("--") + 1 :] == places
    assert argv[argv.index("-e") + 1] == "/usr/bin/ssh -p 2222"


@pytest.mark.parametrize(
    "words", [("a", "b"), ("dev:a", "dev:b"), ("dev:a", "b", "c"), ("dev:a", "web:b", "."), ("a",)]
)
def test_one_side_is_one_vm(run: Run, copied: list[list[str]], words: tuple[str, ...]) -> None:
    assert (run("cp", *words).exit_code, copied) == (2, [])


def test_a_file_that_is_there_is_no_vm(run: Run, copied: list[list[str]]) -> None:
    Path("dev:a").touch()
    assert run("cp", "dev:a", "dev:b").exit_code == 0
    assert copied[0][-2:] == ["./dev:a", "127.0.0.1:b"]


@pytest.mark.parametrize(
    ("code", "told"), [(127, "not installed"), (12, "rsync is not installed"), (23, "exit code 23")]
)
def test_a_failure_is_told(
    run: Run, copied: list[list[str]], monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    monkeypatch.setattr(cp, "interactive", lambda argv: code)
    result = run("cp", "a", "dev:b")
    assert (result.exit_code, told in result.stderr) == (1, True)


def test_without_a_network_it_says_what_goes(run: Run, service: FakeService, copied: list[list[str]]) -> None:
    service.way = dataclasses.replace(service.way, channel=Channel.AGENT)
    result = run("cp", "a", "dev:b")
    assert (result.exit_code, "banger exec demo/dev -- tar x" in result.stderr, copied) == (2, True, [])
