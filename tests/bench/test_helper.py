"""The root helper against `ip` in a loop, in a network namespace: taps, rules, answers, memory."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.drivers.network.connect import open_helper
from reconciler.helper.client import HelperClient
from reconciler.install.archive import helper_archive
from reconciler.install.layout import PACKAGE
from tests.bench.conftest import Measurement, Record
from tests.host.netns import (
    ACTIVATE,
    MARKS,
    Activated,
    as_user,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    ip,
    names,
    namespace_fixture,  # noqa: F401 - a fixture
)

pytestmark = [pytest.mark.bench, *MARKS]

TAPS = 1000
CIDR = "10.30.0.0/16"


@pytest.fixture(name="lab")
def lab_fixture(helper: HelperClient, install: str) -> dict[str, str]:
    where = {"install": install, "environment": "demo", "network": "lab"}
    helper.ensure_bridge(**where, cidr=CIDR, mtu=1500)
    return where


def test_a_thousand_taps(helper: HelperClient, lab: dict[str, str], record: Record) -> None:
    start = time.perf_counter()
    for number in range(TAPS):
        helper.ensure_tap(**lab, vm=f"vm-{number}", mtu=1500)
    ours = time.perf_counter() - start
    for name in names():
        if name.startswith("bgt-"):
            ip("link", "delete", name)
    ip("link", "add", "plain0", "type", "bridge")
    script = (
        f"for n in $(seq {TAPS}); do "
        "ip tuntap add t$n mode tap vnet_hdr && ip link set t$n mtu 1500 master plain0 up; done"
    )
    start = time.perf_counter()
    subprocess.run(["sh", "-euc", script], check=True)
    theirs = time.perf_counter() - start
    record(Measurement(f"{TAPS} taps", f"{ours:.2f} s", f"{theirs:.2f} s by ip in a shell", ours / theirs, 1.0, "x"))


def test_rules_for_a_thousand_vms(helper: HelperClient, lab: dict[str, str], record: Record) -> None:
    vms = [(f"vm-{n}", f"10.30.{1 + n // 250}.{n % 250}") for n in range(TAPS)]
    ports = [("", 10_000 + n, "tcp", f"vm-{n}", 80) for n in range(200)]
    wanted = {"cidr": CIDR, "cidr6": "", "nat": True, "isolated": True, "dns": True, "restricted": False, "egress": []}
    start = time.perf_counter()
    assert helper.ensure_rules(**lab, **wanted, digest="0" * 16, vms=vms, ports=ports)  # type: ignore[arg-type]
    took = time.perf_counter() - start
    record(Measurement(f"rules for {TAPS} VMs", f"{took:.2f} s", "", took, 0.5, " s"))
    start = time.perf_counter()
    assert not helper.ensure_rules(**lab, **wanted, digest="0" * 16, vms=vms, ports=ports)  # type: ignore[arg-type]
    took = time.perf_counter() - start
    record(Measurement("the same rules again", f"{took:.2f} s", "", took, 0.5, " s"))


def test_the_first_answer_and_its_memory(tmp_path: Path, record: Record) -> None:
    """As systemd starts it: one file, no bytecode, a connection that waits."""
    program = tmp_path / "helper.pyz"
    program.write_bytes(helper_archive(PACKAGE))
    took, resident = [], 0.0
    for number in range(9):
        path = tmp_path / f"s{number}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.listen()
        asked = b'{"version":1,"id":"a","operation":"","op":"delete_tap","args":{"install":"0123456789ab","environment":"a","vm":"b"}}'
        argv = ["-c", ACTIVATE, str(listener.fileno()), "/usr/bin/python3", "-I", "-S", "-B", str(program)]
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(len(asked).to_bytes(4, "big") + asked)
            with subprocess.Popen(
                [sys.executable, "-I", "-S", *argv], pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
            ) as child:
                # The launcher, which is no part of it, becomes the helper by exec: from there on it counts.
                while Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")[0] != b"/usr/bin/python3":
                    pass
                start = time.perf_counter()
                assert b"done" in peer.recv(4096)
                took.append(time.perf_counter() - start)
                status = Path(f"/proc/{child.pid}/status").read_text()
                resident = max(resident, int(status.partition("VmRSS:")[2].split()[0]) / 1024)
                child.kill()
        listener.close()
    median = statistics.median(took) * 1000
    record(Measurement("the first answer after activation", f"{median:.0f} ms", "", median, 80, " ms"))
    record(Measurement("memory of the helper", f"{resident:.1f} MiB", "", resident, 20, " MiB"))


def test_answers_beside_stalled_peers(tmp_path: Path, install: str, record: Record) -> None:
    folder = Path("/run") / f"banger-bench-{os.getpid()}"
    folder.mkdir(mode=0o755)
    activated = Activated(folder)
    stalled = [socket.socket(socket.AF_UNIX) for _ in range(200)]

    def stall() -> str:
        for connection in stalled:
            try:
                connection.connect(str(activated.path))
                connection.send(b"\0")
            except OSError:
                pass
        return ""

    def ask() -> str:
        times = []
        with open_helper(activated.path) as client:
            for number in range(200):
                if number % 20 == 0:
                    stall()
                start = time.perf_counter()
                client.ensure_bridge(install=install, environment="demo", network="lab", cidr=CIDR, mtu=1500)
                times.append(time.perf_counter() - start)
        return str(sorted(times)[int(len(times) * 0.99) - 1] * 1000)

    try:
        as_user(4321, stall)
        slow = float(as_user(4322, ask))
    finally:
        activated.stop()
        activated.path.unlink()
        activated.log.unlink()
        folder.rmdir()
    record(Measurement("p99 beside 200 stalled peers", f"{slow:.1f} ms", "", slow, 100, " ms"))
