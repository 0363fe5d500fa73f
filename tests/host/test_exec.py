"""`banger exec` into a VM with a network and into one without, and OpenSSH's own programs by the installed configuration.

Two VMs live through this whole file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.host.conftest import Artifacts
from tests.host.home import Home

pytestmark = pytest.mark.host

BOTH = ("dev", "alone")
AT_ONCE = 50
LENGTHS = {"dev": 16 << 20, "alone": 2 << 20}
"""Bytes that pass in both directions: the agent takes three seconds for each MiB of an emulated guest."""


@pytest.fixture(scope="module")
def home(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("exec"), artifact_cache.cache, f"t{secrets.token_hex(3)}")
    made.write(
        {
            "dev": {"image": "base", "ready": {"timeout": "300s"}},
            "alone": {"image": "small", "network": "none", "ready": {"timeout": "300s"}},
        }
    )
    made.run("apply")
    yield made
    made.destroy()
    assert made.vmms() == {}


def code(home: Home, vm: str, *command: str, **more: object) -> int:
    return subprocess.run([*home.argv("exec", vm, "--"), *command], env=home.env, check=False, **more).returncode  # type: ignore[call-overload,no-any-return]


def test_every_exit_code_and_fifty_commands_at_once(home: Home) -> None:
    """Each has an output and an exit code of its own, and none gets another's."""

    def one(number: int) -> tuple[int, str]:
        done = home.run("exec", "dev", "--", "sh", "-c", f"echo {number}; exit {number}", check=False)
        return done.returncode, done.stdout

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(one, range(256))) == [(number, f"{number}\n") for number in range(256)]


def test_without_a_network_they_take_turns(home: Home) -> None:
    numbers = (0, 1, 126, 127, 128, 255)

    def one(number: int) -> tuple[int, str]:
        done = home.run("exec", "alone", "--", "sh", "-c", f"echo {number}; exit {number}", check=False)
        return done.returncode, done.stdout

    with ThreadPoolExecutor(len(numbers)) as pool:
        assert list(pool.map(one, numbers)) == [(number, f"{number}\n") for number in numbers]


@pytest.mark.parametrize("vm", BOTH)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_command(home: Home, vm: str, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f'trap "echo got {name}; exit 33" {name}; echo ready; while :; do sleep 0.2; done'
    with subprocess.Popen(
        home.argv("exec", vm, "--", "sh", "-c", script), env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(number)
        assert child.stdout.read() == f"got {name}\n".encode()
        assert child.wait(60) == 33


@pytest.mark.parametrize("vm", BOTH)
def test_a_command_that_a_signal_ends_is_told_as_a_shell_tells_it(home: Home, vm: str) -> None:
    assert code(home, vm, "sh", "-c", "kill -9 $$", stderr=subprocess.DEVNULL) == 128 + signal.SIGKILL


@pytest.mark.parametrize("vm", BOTH)
def test_what_goes_in_comes_out(home: Home, vm: str, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    with sent.open("wb") as file:
        for _ in range(LENGTHS[vm] >> 20):
            file.write(os.urandom(1 << 20))
    received = tmp_path / "received"
    with sent.open("rb") as source, received.open("wb") as sink:
        assert code(home, vm, "cat", stdin=source, stdout=sink) == 0
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in (received, sent)] == [
        hashlib.sha256(sent.read_bytes()).hexdigest()
    ] * 2


def test_the_journal_of_a_guest_is_read(home: Home) -> None:
    assert "Linux version" in home.run("logs", "--journal", "dev").stdout
    assert len(home.run("logs", "--journal", "-n", "2", "dev").stdout.splitlines()) == 2
    assert "Linux version" not in home.run("logs", "--journal", "--since", "1s", "dev").stdout


@pytest.fixture(scope="module")
def config(home: Home) -> str:
    """A user's configuration of ssh, with nothing in it but what is installed there."""
    path = home.root / "ssh config"
    home.run("ssh-config", "--install", "--ssh-config", str(path))
    assert len(path.read_text().splitlines()) == 1
    return str(path)


def host(home: Home) -> str:
    return f"dev.{home.environment}.vm"


def talk(*argv: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=input, capture_output=True, text=True, timeout=120, check=False)


def rsync_path(home: Home, config: str) -> str:
    """An rsync for the guest, whose image has none: this host's, with its libraries."""
    program = shutil.which("rsync")
    assert program
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = [line.split("=> ")[1].split(" ")[0] for line in listed.splitlines() if "=> /" in line]
    libraries = [path for path in found if "libc.so" not in path]
    done = talk("scp", "-q", "-F", config, program, *libraries, f"{host(home)}:/run/")
    assert done.returncode == 0, done.stderr
    return "env LD_LIBRARY_PATH=/run /run/rsync"


def test_openssh_and_what_builds_upon_it_know_the_vms(home: Home, config: str, tmp_path: Path) -> None:
    name = host(home)
    done = talk("ssh", "-F", config, name, "hostname; id -un; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "dev\nroot\n", "")
    sent = tmp_path / "a file"
    sent.write_bytes(os.urandom(1 << 20))
    copy = tmp_path / "copy"
    for tool, there in (("scp", "/root/by-scp"), ("sftp", "/root/by-sftp"), ("rsync", "/root/by-rsync")):
        match tool:
            case "scp":
                ways = [
                    ["scp", "-q", "-F", config, sent, f"{name}:{there}"],
                    ["scp", "-q", "-F", config, f"{name}:{there}", copy],
                ]
                talks = [talk(*map(str, argv)) for argv in ways]
            case "sftp":
                orders = f'put "{sent}" {there}\nget {there} "{copy}"\n'
                talks = [talk("sftp", "-b", "-", "-F", config, name, input=orders)]
            case _:
                shell = ["-e", shlex.join(["ssh", "-F", config]), "--rsync-path", rsync_path(home, config)]
                ways = [["rsync", *shell, sent, f"{name}:{there}"], ["rsync", *shell, f"{name}:{there}", copy]]
                talks = [talk(*map(str, argv)) for argv in ways]
        assert [done.returncode for done in talks] == [0] * len(talks), (tool, [done.stderr for done in talks])
        assert copy.read_bytes() == sent.read_bytes(), tool
        copy.unlink()


def test_another_host_key_is_refused_by_all_of_them(home: Home, config: str, tmp_path: Path) -> None:
    """A connection that stands was verified when it was made; each of these makes its own."""
    name = host(home)
    known = home.root / "state" / "vms" / home.environment / "dev" / "known_hosts"
    pinned = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"], check=True)
    other = (tmp_path / "key.pub").read_text().strip()
    known.write_text(f"{pinned.split()[0]} {other}\n")
    alone = ["-F", config, "-o", "ControlPath=none"]
    try:
        tried = [
            home.run("ssh", "dev", "--", "true", check=False),
            talk("ssh", *alone, name, "true"),
            talk("scp", *alone, f"{name}:/etc/hostname", "/dev/null"),
            talk("sftp", "-b", "-", *alone, name, input="ls\n"),
            talk("rsync", "-e", shlex.join(["ssh", *alone]), f"{name}:/etc/hostname", "/dev/null"),
        ]
    finally:
        known.write_text(pinned)
    for done in tried:
        assert done.returncode != 0, done.args
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr, done.args
