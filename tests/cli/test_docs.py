"""What is written about the command line is what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from reconciler.cli import manpage, reference
from reconciler.cli.lazy import Lazy
from reconciler.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]


def commands(command: click.Command = cli, path: str = "banger") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


def test_the_page_is_current() -> None:
    # Blanks do not count: how texts are wrapped is click's business, and differs between its versions.
    assert reference.PAGE.read_text().split() == reference.page().split(), "run: make docs"


def test_the_manual_is_current() -> None:
    assert manpage.MANUAL.read_text() == manpage.page(), "run: make docs"


def test_the_manual_has_every_command_and_no_text_that_is_taken_for_a_request() -> None:
    lines = manpage.page().splitlines()
    for path, _ in commands():
        plain = path.replace("-", r"\-")
        assert path == "banger" or f'.SS "{plain}"' in lines
    known = {".TH", ".SH", ".SS", ".B", ".PP", ".TP", ".nf", ".fi"}
    assert {line.split()[0] for line in lines if line[:1] in (".", "'")} <= known
    assert not any("`" in line or "\b" in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listing_says_what_the_command_says(name: str) -> None:
    entry: Lazy = COMMANDS[name]
    first = (entry.load().help or "").splitlines()[0]
    assert first == entry.help


def test_every_option_has_a_variable_that_the_page_names() -> None:
    page = reference.PAGE.read_text()
    for path, command in commands():
        for parameter in command.params:
            if not isinstance(parameter, click.Option) or parameter.name == "version":
                continue
            longest = max((name for name in parameter.opts if name.startswith("--")), key=len)
            assert parameter.envvar == "BANGER_" + longest[2:].replace("-", "_").upper(), f"{path} {longest}"
            assert parameter.envvar in page
            assert parameter.help, f"{path} {longest}"


def test_the_readme_names_every_command() -> None:
    named = set(re.findall(r"`banger ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert set(COMMANDS) <= named


def test_every_runtime_dependency_has_a_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ \[]", text)[0] for text in project["dependencies"]}
    rows = re.findall(r"^\| `([a-z0-9_-]+)` \| (.+) \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    assert {name for name, text in rows} == names
