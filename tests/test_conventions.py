"""Style, types and layers are tests like any other, and so is what the texts may not say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 400
# What explains a file that is longer, in its first lines.
EXCUSE = re.compile(r"long because", re.IGNORECASE)
# Spelled so that this file does not contain them.
FORBIDDEN = re.compile(
    "|".join((r"\bTO" r"DO\b", r"\bFIX" r"ME\b", r"\bX" r"XX\b", r"\bfor n" r"ow\b", r"\bst" r"ub\b"))
)
CHECKERS = {
    "ruff check": ["-m", "ruff", "check", "--no-cache", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "--no-cache", "."],
    "mypy": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
}


def sources() -> list[Path]:
    folders = ("reconciler", "tests", "docs", "schemas", "systemd", ".ci")
    kinds = {".py", ".md", ".json", ".sh", ".service", ".socket", ""}
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    found += [
        ROOT / name for name in ("Makefile", "README.md", "CHANGELOG.md", "pyproject.toml", "banger.yaml.example")
    ]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


@pytest.mark.parametrize("checker", CHECKERS)
def test_checker(checker: str) -> None:
    done = subprocess.run(
        [sys.executable, *CHECKERS[checker]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{checker}:\n{done.stdout}{done.stderr}"


def test_files_are_short_or_say_why_not() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources()
        if path.suffix == ".py"
        and (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
        and not EXCUSE.search("\n".join(path.read_text(encoding="utf-8").splitlines()[:20]))
    }
    assert not long


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "reconciler").rglob("*.py")
        if not path.read_text(encoding="utf-8").startswith(('"""', 'r"""'))
    ]
    assert not silent


def test_every_ignored_finding_has_its_reason() -> None:
    bare = re.compile(r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        if path.suffix == ".py" and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert not found
