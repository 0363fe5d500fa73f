"""Which tools are asked for: files in, plan out, as data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.workspace.toolchain import READERS, detect, judge

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "tools" / "cases.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    found = judge({name: text.encode() for name, text in case["files"].items()})
    assert {w.tool: [w.version, f"{w.file} says {w.said}", *w.instead] for w in found.wishes} == case["tools"]
    assert [name for name, _ in found.unread] == case.get("unread", [])


def test_only_plain_files_of_decent_size_are_read(tmp_path: Path) -> None:
    (tmp_path / ".nvmrc").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / ".python-version")
    (tmp_path / "package.json").write_text(" " * (1 << 20) + "{}")
    (tmp_path / "go.mod").mkdir()
    (tmp_path / ".ruby-version").write_text("3.3")
    assert [wish.tool for wish in detect(tmp_path).wishes] == ["ruby"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]", b'{"engines": 3}', b"\0"])
def test_no_content_is_more_than_a_file_that_cannot_be_read(name: str, data: bytes) -> None:
    judge({name: data})
