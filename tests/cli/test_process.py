"""banger as a process: what it imports, how it dies, what a terminal gets to see."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """
import sys
from reconciler.cli import wire
from reconciler.cli.main import main
from tests.fakes import service as fakes
fake = fakes.FakeService()
wire.connect = lambda: fake
sys.argv[0] = "banger"
"""
# What costs more than all of a listing. `rich.progress` and the parsers are for commands that need them.
HEAVY = (
    "yaml",
    "jsonschema",
    "pyroute2",
    "dns",
    "tenacity",
    "watchdog",
    "rich",
    "sqlite3",
    "asyncio",
    "reconciler.spec.load",
)
CALM = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}


def start(code: str, *args: str, env: Mapping[str, str] | None = None, **more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, *args],
        env={**CALM, **(env or {})},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more},  # type: ignore[call-overload]
    )


def finish(child: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=60)
    return child.returncode, (out or b"").decode(), (err or b"").decode()


def imported(code: str, *args: str) -> set[str]:
    """The modules of one command of a process that has our fakes out of the way."""
    probe = f"import sys; sys.argv = ['banger', *sys.argv[1:]]\n{code}\nprint(*sorted(sys.modules), file=sys.stderr)"
    child = subprocess.run([sys.executable, "-c", probe, *args], env=CALM, capture_output=True, check=True, text=True)
    return set(child.stderr.split())


RUN = """
from reconciler.cli.main import cli
try:
    cli.main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""


def test_help_imports_click_and_the_listing_only() -> None:
    ours = {name for name in imported(RUN, "--help") if name.startswith("reconciler")}
    assert ours == {
        "reconciler",
        "reconciler.cli",
        "reconciler.cli.interrupts",
        "reconciler.cli.lazy",
        "reconciler.cli.main",
        "reconciler.lib",
        "reconciler.lib.errors",
    }


@pytest.mark.parametrize("command", ["ps", "status", "wait"])
def test_listings_import_nothing_heavy(tmp_path: Path, command: str) -> None:
    code = f"""
from reconciler.cli import wire
class Nobody:
    def environments(self): return []
    def vms(self, environment): return []
    def status(self, environment): return []
    def close(self): pass
wire.connect = Nobody
import os; os.chdir({str(tmp_path)!r})
{RUN}"""
    (tmp_path / "banger.yaml").write_text("name: demo\n") if command != "wait" else None
    found = imported(code, command)
    assert not {name for name in found for heavy in HEAVY if name == heavy or name.startswith(f"{heavy}.")}
    if command != "wait":
        assert {name for name in found if name.startswith("reconciler.cli")} == {
            "reconciler.cli",
            "reconciler.cli.commands",
            "reconciler.cli.commands.listing",
            "reconciler.cli.interrupts",
            "reconciler.cli.lazy",
            "reconciler.cli.main",
            "reconciler.cli.options",
            "reconciler.cli.render",
            "reconciler.cli.target",
            "reconciler.cli.terminal",
            "reconciler.cli.vmtables",
            "reconciler.cli.wire",
        }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_children_and_the_process_in_order(number: int, code: int) -> None:
    """The fake apply runs `sleep` as a real child through the one door, and says so; then the signal comes."""
    seconds = f"1000.{os.getpid()}{code}"
    child = start(
        f"""
import os
from reconciler.lib.run import run
ours = os.dup(1)
def vms(environment):
    try:
        run(["sh", "-c", f"echo ready >&{{ours}}; exec sleep {seconds}"], pass_fds=[ours])
    finally:
        print("unwound", file=sys.stderr, flush=True)
fake.vms = vms
main()
""",
        "ps",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(number)
    returncode, _, err = finish(child)
    assert returncode == code
    assert err.splitlines()[0] == "unwound"
    assert "Traceback" not in err
    assert sleepers(seconds) == []


def test_a_signal_reaches_what_worker_threads_wait_for() -> None:
    """A pool's end waits for its threads, and those for children that hear no Ctrl-C: somebody has to end them."""
    child = start(
        """
import os
from concurrent.futures import ThreadPoolExecutor
from reconciler.lib.run import run
ours = os.dup(2)
def vms(environment):
    with ThreadPoolExecutor() as pool:
        work = pool.submit(run, ["sh", "-c", f"echo working >&{ours}; exec sleep 1000"], pass_fds=[ours])
        work.result()
fake.vms = vms
main()
""",
        "ps",
    )
    assert child.stderr is not None
    try:
        assert child.stderr.readline() == b"working\n"
        child.send_signal(signal.SIGTERM)
        assert finish(child)[0] == 143
    finally:
        child.kill()


def test_a_second_signal_leaves_at_once() -> None:
    child = start(
        """
import time
def vms(environment):
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
    finally:
        print("unwinding", flush=True)
        while True:
            time.sleep(0.1)  # a signal between a look and pause(2) would leave that asleep
fake.vms = vms
main()
""",
        "ps",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == b"unwinding\n"
    child.send_signal(signal.SIGINT)
    assert finish(child)[0] == 130


def test_a_term_that_is_sent_twice_at_once_is_one() -> None:
    """As by timeout(1), which sends it to its child and to its whole group."""
    child = start(
        """
import os, signal
def vms(environment):
    try:
        print("ready", flush=True)
        while True:
            signal.sigtimedwait([], 0.1)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("unwound", flush=True)
fake.vms = vms
main()
""",
        "ps",
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    code, out, _ = finish(child)
    assert (code, out) == (143, "unwound\n")


def sleepers(seconds: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, words = (folder / "stat").read_text(), (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [seconds.encode()] and status.rpartition(") ")[2][0] != "Z":
            found.append(folder.name)
    return found


def test_a_closed_pipe_is_silent() -> None:
    child = start("fake.objects = [fakes.vm_status(f'vm{n}') for n in range(20000)]\nmain()", "ps")
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    child.stdout = None
    returncode, _, err = finish(child)
    assert (returncode, err) == (141, "")


def test_a_full_disk_is_a_sentence() -> None:
    with open("/dev/full", "wb") as full:
        returncode, _, err = finish(start("main()", "ps", "-o", "json", stdout=full))
    assert (returncode, err.splitlines()[0]) == (1, "banger: No space left on device")
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_a_refused_folder_is_a_sentence() -> None:
    code = "fake.error = PermissionError(13, 'Permission denied', '/var/lib/banger')\nmain()"
    returncode, out, err = finish(start(code, "ps"))
    assert (returncode, out) == (1, "")
    assert err.startswith("banger: /var/lib/banger: Permission denied\n  hint: run as the user who owns it")


def test_a_defect_is_one_line_unless_all_is_asked_for() -> None:
    code = "fake.error = KeyError('x')\nmain()"
    returncode, _, err = finish(start(code, "ps"))
    assert (returncode, err) == (
        1,
        "banger: unexpected error: KeyError: 'x'\n  hint: BANGER_DEBUG=1 shows where it happened\n",
    )
    err = finish(start(code, "ps", env={"BANGER_DEBUG": "1"}))[2]
    assert "Traceback (most recent call last)" in err


def on_a_terminal(code: str, *args: str, env: Mapping[str, str] | None = None, typed: bytes = b"") -> tuple[int, str]:
    """What a terminal shows, with the process's stdin, stdout and stderr on it."""
    main_end, other_end = pty.openpty()
    child = start(code, *args, env=env, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True)
    os.close(other_end)
    shown = b""
    while True:
        if not select.select([main_end], [], [], 60)[0]:
            child.kill()
            break
        try:
            block = os.read(main_end, 1 << 16)
        except OSError:  # EIO: the last one who had the terminal open has left
            break
        shown += block
        if typed and b"[y/N]" in shown:
            os.write(main_end, typed)
            typed = b""
    os.close(main_end)
    return child.wait(60), shown.decode().replace("\r\n", "\n")


def test_colours_on_a_terminal_and_none_with_no_color() -> None:
    assert "\x1b[32mready\x1b[0m" in on_a_terminal("main()", "ps")[1]
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_a_terminal("main()", "ps", env=env)[1]


APPLY = """
from types import SimpleNamespace
from pathlib import Path
from reconciler.cli import target
target.load = lambda given, settings: SimpleNamespace(desired=fakes.desired(), digest="d", path=Path("banger.yaml"))
"""


def test_a_terminal_is_asked_and_sees_progress() -> None:
    code, shown = on_a_terminal(f"{APPLY}fake.the_plan = fakes.restart()\nmain()", "apply", typed=b"y\n")
    assert code == 0
    assert "Go ahead? [y/N]" in shown
    assert "done\x1b[0m stop vm/dev (1.5 s)" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor is hidden, and shown again


def test_no_is_no() -> None:
    code, shown = on_a_terminal(f"{APPLY}fake.the_plan = fakes.removal()\nmain()", "apply", typed=b"n\n")
    assert code == 1
    assert shown.endswith("nothing was done\n")


def test_progress_without_colour() -> None:
    code, shown = on_a_terminal(f"{APPLY}main()", "apply", env={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b[3" not in shown
    assert "done build image/base (1.5 s)" in shown


def test_a_guests_console_cannot_take_over_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"\x1b]0;title\x07\x1b[2J\x1b[32mok\x1b[0m\n")
    code = f"from pathlib import Path\nfake.log = Path({str(log)!r})\nmain()"
    assert on_a_terminal(code, "logs", "dev")[1] == "^[]0;title^G^[[2Jok\n"


def test_exec_passes_the_exit_code_stdin_and_every_word(tmp_path: Path) -> None:
    """The words pass a shell in the guest once, the last of ssh's own; here it is this host's."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n')
    ssh.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{CALM['PATH']}"}
    command = ["sh", "-c", 'cat; printf "<%s>" "$@"; exit 42', "sh", "a b", "", "$c"]
    child = start("main()", "exec", "dev", "--", *command, env=env, stdin=subprocess.PIPE)
    out, err = child.communicate(b"typed;", timeout=60)
    assert (child.returncode, out, err) == (42, b"typed;<a b><><$c>", b"")


def test_without_ssh_the_package_is_named(tmp_path: Path) -> None:
    from reconciler.lib.run import which

    code = "from reconciler.lib import run\nrun.which = lambda program: None\nmain()"
    assert which("ssh") is not None
    returncode, _, err = finish(start(code, "ssh", "dev"))
    assert (returncode, err) == (1, "banger: ssh is not installed\n  hint: apt-get install openssh-client\n")


def test_python_m_reconciler_is_banger() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "reconciler", "--version"], env=CALM, capture_output=True, check=True, text=True
    )
    assert (child.returncode, child.stdout[:7]) == (0, "banger ")
