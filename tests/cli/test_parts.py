"""The parts below the commands: names without a parser, YAML without a library, harmless text, reporters."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reconciler.cli import target, yamlout
from reconciler.cli.live import Live
from reconciler.cli.render import table
from reconciler.cli.reporter import Plain
from reconciler.cli.terminal import harmless
from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.status import State
from tests.fakes.service import creation, vm_status

BUILD = creation().steps[0]
NAMES = {
    "name: demo\n": "demo",
    "apiVersion: banger/v1\r\nname: demo\r\n".replace("\r\n", "\n"): "demo",
    "---\nname: 'demo'   # mine\nvms: {}\n": "demo",
    'name: "demo"': "demo",
    "vms:\n  name: other\nname: demo\n": "demo",
    "name: demo\nname: demo2\n": None,
    "'name': a\nname: b\n": None,
    "name: ${x}\n": None,
    "name: demo,\n": None,
    "name: Demo\n": None,
    "name:\n  demo\n": None,
    "name: demo#1\n": None,
    "{\nname: demo\n}\n": None,
    "--- |\nname: demo\n": None,
    "name: a\n...\n---\nname: b\n": None,
    " name: demo\n": None,
    "name: null1\n": "null1",
    "": None,
}


@pytest.mark.parametrize("text", NAMES)
def test_a_plain_name_is_read_without_a_parser(text: str) -> None:
    assert target.plain_name(text) == NAMES[text]


@given(st.text(alphabet="name: demoxy'\"{}[]-#|>&*!%\n", max_size=60))
def test_a_plain_name_is_never_another_than_the_parsers(text: str) -> None:
    found = target.plain_name(text)
    if found is None:
        return
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError:
        return  # the commands that only list do not mind; those that apply read the file properly
    assert parsed["name"] == found


def test_an_unreadable_file_is_left_to_the_spec_reader(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"name: demo\n" + b"#" * (1 << 20))
    (tmp_path / "bytes").write_bytes(b"name: demo\n\xff")
    for name in ("big", "bytes", "absent", "."):
        assert target._read(tmp_path / name) == ""


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    assert target._read(tmp_path / "fifo") == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_yaml_reads_back_as_the_same_value(value: object) -> None:
    text = yamlout.dump(value)
    # PyYAML wants a dot in floats with an exponent; YAML 1.2 and our own reader do not.
    if "e" in repr(value) and any(isinstance(leaf, float) for leaf in leaves(value)):
        return
    assert yaml.safe_load(text) == value


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_yaml_looks_as_one_would_write_it() -> None:
    value = {
        "items": [{"kind": "vm", "ports": [], "when": "12:30", "conditions": [{"type": "Ready", "status": "True"}]}]
    }
    assert yamlout.dump(value) == (
        'items:\n- kind: vm\n  ports: []\n  when: "12:30"\n  conditions:\n  - type: Ready\n    status: "True"\n'
    )


@given(st.text())
def test_harmless_text_has_no_control_characters(text: str) -> None:
    shown = harmless(text)
    assert not {char for char in shown if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} - set("\n\t")
    if text.isprintable() and "\\" not in text:
        assert shown in (text, *[shown for char in text if 0x2000 <= ord(char) < 0x2070])


def test_harmless_spells_out_what_it_hides() -> None:
    assert harmless("a\x1b[1;31mb\x1b[0m\x07\x7f\x9b\u202e\r") == "ab^G^?\\u009b\\u202e^M"


def test_a_table_drops_columns_that_hold_nothing() -> None:
    assert table(["A", "B", "C"], [["1", "", "x"], ["22", "", ""]]) == "A   C\n1   x\n22"


class Lines(list[str]):
    """Collects lines; the clock is whatever the test says."""

    now = 0.0

    def plain(self) -> Plain:
        return Plain(self.append, lambda: self.now)


def test_plain_messages_come_when_they_change_and_not_too_often() -> None:
    lines = Lines()
    plain = lines.plain()
    plain.started(BUILD)
    for second, message in (
        (0.0, "downloading"),
        (0.5, "unpacking"),
        (1.5, "unpacking"),
        (3.0, "unpacking"),
        (4.0, ""),
    ):
        lines.now = second
        plain.progress(BUILD, None, message)
    plain.retrying(BUILD, BangerError("mirror: \x07timeout\nmore"), 4.0)
    plain.finished(BUILD, Outcome(step=BUILD.id, object="image/base", result=Result.DONE, seconds=21.44))
    assert lines[:-1] == [
        "build image base: Debian bookworm with git",
        "build image base: downloading",
        "build image base: unpacking",
        "build image base: mirror: ^Gtimeout; next try in 4 s",
    ]
    assert lines[-1].endswith(" build image/base (21.4 s)")


def test_plain_waiting_tells_changes_only() -> None:
    lines = Lines()
    plain = lines.plain()
    plain.waiting([vm_status(state=State.STARTING), vm_status("web", state=State.STARTING)])
    plain.waiting([vm_status(), vm_status("web", state=State.STARTING)])
    plain.waiting([vm_status(), vm_status("web", state=State.STARTING)])
    assert lines == ["vm dev: starting", "vm web: starting", "vm dev: ready"]


def test_live_draws_running_steps_and_leaves_finished_ones() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, highlight=False, _environ={"TERM": "xterm"})
    with Live(console) as live:
        assert screen.getvalue() == ""
        live.started(BUILD)
        live.progress(BUILD, 0.5, "[bold]down\x1b[2Jloading")
        live._progress.refresh()
        assert "build image base: [bold]down^[[2Jloading" in screen.getvalue()
        live.progress(BUILD, None, "packing")
        live.retrying(BUILD, BangerError("slow mirror"), 2.0)
        error = BangerError("no such package\nE: details")
        live.finished(BUILD, Outcome(step=BUILD.id, object="image/base", result=Result.FAILED, error=error))
        live.waiting([vm_status(state=State.STARTING), vm_status("web")])
        live._progress.refresh()
        assert "dev (starting)" in screen.getvalue()
        live.note("a [note]")
    told = screen.getvalue()
    assert "build image/base (0.0 s): no such package\n" in told.replace("\x1b[0m", "")
    assert "a [note]\n" in told
    assert told.rstrip().endswith(("\x1b[?25h", "\x1b[2K"))
