"""The smaller commands: ssh, logs, vm, init, schema, version, completion."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions, SshOptions, TrashEntry, VmVerb
from reconciler.cli import logreading, resources, wire
from reconciler.cli.commands import enter
from reconciler.lib.errors import BangerError
from tests.cli.conftest import Run
from tests.fakes.service import FakeService, vm_status


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What the process would have become."""
    seen: list[tuple[str, list[str]]] = []

    def execv(program: str, argv: list[str]) -> None:
        seen.append((program, argv))
        raise SystemExit(7)

    monkeypatch.setattr(enter, "require", lambda program, package: f"/usr/bin/{program}")
    monkeypatch.setattr("reconciler.cli.commands.enter.os.execv", execv)
    return seen


@pytest.mark.parametrize(
    ("args", "ref", "command", "tty", "options"),
    [
        (("ssh", "dev"), "demo/dev", None, None, ()),
        (("ssh", "dev", "uname", "-a"), "demo/dev", ["uname", "-a"], None, ()),
        (("ssh", "--tty", "demo/dev", "--", "top"), "demo/dev", ["top"], True, ()),
        (("ssh", "-A", "--user", "me", "dev"), "demo/dev", None, None, (SshOptions(user="me", lend_agent=True),)),
        (
            ("ssh", "-L", "1:h:2", "-L", "3:h:4", "-R", "5:h:6", "-D", "7", "dev", "-L", "mine"),
            "demo/dev",
            ["-L", "mine"],
            None,
            (SshOptions(forwards=("-L", "1:h:2", "-L", "3:h:4", "-R", "5:h:6", "-D", "7")),),
        ),
    ],
)
def test_the_process_becomes_ssh(
    run: Run,
    service: FakeService,
    became: list[tuple[str, list[str]]],
    args: tuple[str, ...],
    ref: str,
    command: list[str] | None,
    tty: bool | None,
    options: tuple[SshOptions, ...],
) -> None:
    run(*args)
    assert service.calls[-1] == ("ssh_argv", ref, command, tty, *options)
    assert became == [("/usr/bin/ssh", [*service.argv, *(command or [])])]
    assert service.closed == 1


@pytest.mark.parametrize("args", [("exec", "dev"), ("exec", "dev", "--"), ("exec",), ("ssh",)])
def test_nothing_to_run_is_a_usage_error(run: Run, became: list[tuple[str, list[str]]], args: tuple[str, ...]) -> None:
    assert run(*args).exit_code == 2
    assert became == []


def test_a_bare_name_is_looked_up_in_the_files_environment(run: Run, service: FakeService) -> None:
    Path("banger.yaml").write_text("name: lab # here\n")
    service.objects = [vm_status(), vm_status(environment="lab")]
    service.log = Path("banger.yaml")
    assert run("logs", "dev").exit_code == 0
    assert service.calls[-1] == ("resolve", "dev", "lab")
    run("logs", "demo/dev")
    assert service.calls[-1] == ("resolve", "demo/dev", None)


def test_logs_elsewhere_are_the_bytes_as_they_are(run: Run, service: FakeService) -> None:
    raw = b"[    0.1] boot\r\n\x1b[32mok\x1b[0m \xff\x00\n" * 3
    service.log = Path("console.log")
    service.log.write_bytes(raw)
    assert run("logs", "dev").stdout_bytes == raw
    assert run("logs", "-n", "2", "dev").stdout_bytes == raw[-len(raw) // 3 :]
    assert run("logs", "-n", "0", "dev").stdout_bytes == b""


def test_no_log_yet(run: Run) -> None:
    result = run("logs", "dev")
    assert (result.exit_code, "no console log yet" in result.stderr) == (1, True)


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    "text", [b"", b"a", b"a\n", b"\n\n\n", b"one\ntwo\nthree", b"one\ntwo\nthree\n", b"x" * 2_000 + b"\ny\n"]
)
def test_last_lines_is_what_tail_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, size: int) -> None:
    monkeypatch.setattr(logreading, "_BLOCK", size)
    path = tmp_path / "log"
    path.write_bytes(text)
    for count in range(5):
        with path.open("rb") as log:
            log.seek(logreading.last_lines(log, count))
            shown = subprocess.run(["tail", "-n", str(count), path], capture_output=True, check=True).stdout
            assert log.read() == shown


def test_following_survives_truncation_and_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first boot, long\n")
    steps = iter(
        [
            lambda: path.open("ab").write(b"more\n"),
            lambda: path.write_bytes(b"cut\n"),
            lambda: (tmp_path / "new").write_bytes(b"new file\n"),
            lambda: (tmp_path / "new").replace(path),
            path.unlink,
            lambda: path.write_bytes(b"again\n"),
        ]
    )

    def instead_of_sleeping(seconds: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(logreading.time, "sleep", instead_of_sleeping)
    seen = b""
    with path.open("rb") as log, pytest.raises(KeyboardInterrupt):
        for block in logreading.follow_blocks(log, path):
            seen += block
    assert seen == b"first boot, long\nmore\ncut\nnew file\nagain\n"


def test_an_escape_sequence_cut_in_two_is_still_harmless() -> None:
    raw = "é\x1b[2J\x1b[31mred\x1b[0m\r\nlogin: ".encode()
    for cut in range(len(raw)):
        text = "".join(logreading.readable(iter([raw[:cut], raw[cut:]])))
        assert "\x1b" not in text
        assert text == "é^[[2Jred\nlogin: "


@pytest.mark.parametrize("verb", list(VmVerb))
def test_vm_verbs(run: Run, service: FakeService, verb: VmVerb) -> None:
    service.objects = [vm_status(), vm_status("web")]
    result = run("vm", verb, "dev", "demo/web")
    assert result.exit_code == 0
    done = [call for call in service.calls if call[0] == "vm"]
    assert [call[1:3] for call in done] == [(verb, "demo/dev"), (verb, "demo/web")]
    assert result.stderr.count("\n") == 2


def test_vm_start_waits_unless_told_otherwise(run: Run, service: FakeService) -> None:
    run("vm", "start", "--no-wait", "dev")
    assert service.calls[-1] == ("vm", VmVerb.START, "demo/dev", ApplyOptions(wait=False))
    run("vm", "restart", "--timeout", "5s", "dev")
    assert service.calls[-1][3] == ApplyOptions(timeout=5.0)


def test_one_failing_vm_delays_no_other(run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.objects = [vm_status(), vm_status("web")]
    done = []

    def vm(verb: VmVerb, ref: object, *more: object) -> None:
        if str(ref) == "demo/dev":
            raise BangerError("it is stuck")
        done.append(str(ref))

    monkeypatch.setattr(service, "vm", vm)
    result = run("vm", "stop", "dev", "web")
    assert result.exit_code == 1
    assert done == ["demo/web"]
    assert "banger: stop demo/dev: it is stuck" in result.stderr


def test_an_unknown_vm_stops_everything_before_it_begins(run: Run, service: FakeService) -> None:
    assert run("vm", "kill", "dev", "nope").exit_code == 2
    assert not [call for call in service.calls if call[0] == "vm"]


def test_discard_deletes_what_is_named_or_old_enough(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trashed(entry: str, days: float) -> TrashEntry:
        return TrashEntry(
            entry=entry, environment="demo", name="dev", trashed_at=time.time() - days * 86400, size=3 << 20
        )

    def left() -> list[str]:
        return [entry.entry for entry in service.trashed]

    service.trashed = [trashed("e1", 1), trashed("e2", 9), trashed("e3", 40)]
    assert complete(run, "banger vm discard e", 3) == ["e1", "e2", "e3"]
    for words in ([], ["--all", "e1"], ["e1", "nope"]):
        assert (run("vm", "discard", *words).exit_code, len(left())) == (2, 3)
    monkeypatch.setattr("reconciler.cli.commands.vm.asks", lambda: True)
    refused = run("vm", "discard", "e1", input="n\n")
    assert (refused.exit_code, "demo/dev" in refused.stderr, len(left())) == (1, True, 3)
    assert "discarded e1" in run("vm", "discard", "e1", input="y\n").stderr
    assert "discarded e3" in run("vm", "discard", "--all", "--older-than", "30d", "--yes").stderr
    assert left() == ["e2"]
    assert "nothing to discard" in run("vm", "discard", "--all", "--older-than", "30d").stderr


def test_restore_and_trash(run: Run, service: FakeService) -> None:
    service.trashed = [TrashEntry(entry="e1", environment="demo", name="dev", trashed_at=86400.0, size=3 << 20)]
    assert run("vm", "trash").stdout == (
        "NAME  ENVIRONMENT  TRASHED               SIZE     ENTRY\n"
        "dev   demo         1970-01-02T00:00:00Z  3.0 MiB  e1\n"
    )
    item = json.loads(run("vm", "trash", "-o", "json").stdout)["items"][0]
    assert item["trashedAt"] == "1970-01-02T00:00:00Z"
    assert run("vm", "trash", "-o", "name").stdout == "e1\n"
    run("vm", "restore", "dev", "--entry", "e1", "--no-wait")
    assert service.calls[-1] == ("restore", "dev", None, "e1", ApplyOptions(wait=False))
    run("vm", "restore", "vm/lab/dev")
    assert service.calls[-1][1:3] == ("dev", "lab")


def test_init_never_overwrites(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "example", lambda: "# a comment\napiVersion: banger/v1\nname: demo\n")
    assert run("init", "--name", "lab").exit_code == 0
    assert Path("banger.yaml").read_text() == "# a comment\napiVersion: banger/v1\nname: lab\n"
    Path("banger.yaml").write_text("mine")
    result = run("init")
    assert (result.exit_code, Path("banger.yaml").read_text()) == (2, "mine")
    Path("dangling.yaml").symlink_to("nowhere")
    assert run("init", "-f", "dangling.yaml").exit_code == 2
    assert not Path("nowhere").exists()
    assert run("init", "-f", "other.yaml", "--name", "Not A Name").exit_code == 2
    assert not Path("other.yaml").exists()
    assert run("init", "-f", "missing/banger.yaml").exit_code == 1


@pytest.mark.parametrize("which", resources.SCHEMAS)
def test_schemas_are_json_schemas(run: Run, which: str) -> None:
    assert json.loads(run("schema", which).stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_of_nothing(run: Run) -> None:
    assert run("schema", "nope").exit_code == 2


def test_version(run: Run) -> None:
    assert run("version").stdout.startswith("banger 0.")
    found = json.loads(run("version", "-o", "json").stdout)
    assert set(found) == {"apiVersion", "kind", "banger", "python", "qemu"}
    assert run("--version").stdout == f"banger {found['banger']}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse(run: Run, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "script"
    script.write_text(run("completion", shell).stdout)
    assert "_BANGER_COMPLETE" in script.read_text()
    if shutil.which(shell) is None:
        return
    subprocess.run([shell, "-n", script], check=True)


def complete(run: Run, words: str, count: int) -> list[str]:
    env = {"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    return [line.partition(",")[2] for line in run(env=env).stdout.split()]


def test_vm_names_are_completed(run: Run, service: FakeService) -> None:
    service.objects = [vm_status(), vm_status("db"), vm_status("web", "lab")]
    assert complete(run, "banger ssh d", 2) == ["db", "dev"]
    assert complete(run, "banger vm stop lab/", 3) == ["lab/web"]
    assert "doctor" in complete(run, "banger d", 1)


def test_completion_of_a_broken_state_is_silent(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> FakeService:
        raise BangerError("locked")

    monkeypatch.setattr(wire, "connect", broken)
    assert complete(run, "banger ssh d", 2) == []
