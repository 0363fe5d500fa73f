"""The helper as a process of its own: killed at every step, failing at every step, orphaned.

Each test has a network namespace of its own.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.drivers.network import bridge
from reconciler.drivers.network.connect import open_helper
from reconciler.drivers.network.probe import read_links
from reconciler.helper.client import HelperClient, HelperLostError
from reconciler.helper.names import LinkKind
from reconciler.helper.protocol import Code, Op, Refusal, Request
from tests.host.netns import (
    CIDR,
    MARKS,
    ROOT,
    Network,
    Raw,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    ip,
    names,
    namespace_fixture,  # noqa: F401 - a fixture
    network_fixture,  # noqa: F401 - a fixture
    owner,
)

pytestmark = MARKS

LOCK = Path("/run/banger/helper.lock")
FORWARDING = "/proc/sys/net/ipv4/conf/up0/forwarding"


@pytest.fixture
def uplink() -> None:
    """An interface of the host, so that there is forwarding to switch on."""
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    ip("link", "set", "up0", "up")


def test_equal_requests_at_once_have_one_effect(install: str, tmp_path: Path) -> None:
    clients = [open_helper(uid=0, log=tmp_path / "helper.log") for _ in range(4)]
    answers: list[tuple[str, str]] = []

    def ask(client: HelperClient) -> None:
        asked = Network(client, install)
        answers.append((asked.bridge(), asked.tap()))

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert names() == set(answers[0])
    audit = (tmp_path / "helper.log").read_text()
    assert audit.count('outcome="changed"') == 2
    assert audit.count('outcome="unchanged"') == 14
    for client in clients:
        client.close()


def requests(install: str) -> list[Request]:
    network = {"install": install, "environment": "demo", "network": "lab"}
    return [
        Request(op=Op.ENSURE_BRIDGE, **network, cidr=CIDR, mtu=1400),
        Request(op=Op.ENSURE_TAP, **network, vm="web", mtu=1400),
        Request(
            op=Op.ENSURE_RULES,
            **network,
            digest="0" * 16,
            cidr=CIDR,
            nat=True,
            vms=(("web", "172.30.7.10"),),
            ports=(("", 8080, "tcp", "web", 80),),
        ),
    ]


# Counts the steps that touch the host, and does `at` once it comes to the nth, before or after it.
STEPS = """
import os, fcntl
from reconciler.helper import forwarding, netlink, ops, run
steps = [0]
def counted(step):
    def call(*args, **more):
        steps[0] += 1
        open({tally!r}, "w").write(str(steps[0]))
        if steps[0] == {nth} and {before}: {at}
        mine = steps[0]
        try:
            return step(*args, **more)
        finally:  # a step may find that something is not there, and say so by an error
            if mine == {nth} and not {before}: {at}
    return call
run.subprocess.run = counted(run.subprocess.run)
ops.fcntl.ioctl = counted(fcntl.ioctl)
netlink.Netlink.ask = counted(netlink.Netlink.ask)
forwarding.write = counted(forwarding.write)
"""
KILL = "os.kill(os.getpid(), 9)"
FAIL = "raise OSError(5, os.strerror(5))"


@pytest.mark.parametrize("before", [True, False])
def test_killed_at_every_step(before: bool, network: Network, uplink: None, install: str, tmp_path: Path) -> None:
    tally = tmp_path / "steps"
    for nth in range(1, 80):
        raw = Raw(STEPS.format(nth=nth, before=before, at=KILL, tally=str(tally)))
        for request in requests(install):
            raw.send(request)
        raw.socket.shutdown(socket.SHUT_WR)
        raw.process.wait(30)
        raw.end()
        _assert_converges(network, install)
        if int(tally.read_text()) < nth:
            break  # fewer steps than that: every one was covered
    assert 20 < nth < 79


@pytest.mark.parametrize("before", [True, False])
def test_every_step_failing_once(before: bool, network: Network, uplink: None, install: str, tmp_path: Path) -> None:
    """Each netlink call, ioctl, program and sysctl in turn: the request says so, and succeeds when it is repeated."""
    for nth in range(1, 80):
        tally = tmp_path / "steps"
        raw = Raw(STEPS.format(nth=nth, before=before, at=FAIL, tally=str(tally)))
        client = HelperClient(lambda raw=raw: raw, timeout=30)  # type: ignore[misc]
        with pytest.raises(Refusal):
            client.delete_tap(install="", environment="demo", vm="web")  # it has started
        open_before = descriptors(raw)
        for request in requests(install):
            try:
                client._ask(request, "")
            except Refusal as refusal:
                assert refusal.code is Code.FAILED
                client._ask(request, "")
        assert descriptors(raw) == open_before
        raw.end()
        _assert_converges(network, install)
        if int(tally.read_text()) < nth:
            break  # fewer steps than that: every one was covered
    assert 20 < nth < 79


def descriptors(raw: Raw) -> int:
    return len(os.listdir(f"/proc/{raw.process.pid}/fd"))


def test_killed_at_any_moment(network: Network, uplink: None, install: str) -> None:
    for _ in range(50):
        raw = Raw()
        for request in requests(install):
            raw.send(request)
        time.sleep(random.uniform(0.01, 0.12))  # the moment, not a wait: start-up and both requests take about 0.1 s
        raw.end()
        _assert_converges(network, install)


def _assert_converges(network: Network, install: str) -> None:
    """Whatever is there is ours or a corpse; another network's request sweeps, and ours completes."""
    left = names() - {"up0", "up1"}
    assert left <= {owner(install, LinkKind.BRIDGE, "lab").interface, owner(install, LinkKind.TAP, "web").interface}
    swept = random.choice((True, False))
    if swept:
        bridge.delete(network.client, install=install, environment="demo", network="unrelated")
        known = read_links(install)
        assert names() - {"up0", "up1"} == {link.name for link in (*known.bridges.values(), *known.taps.values())}
    network.bridge()
    network.tap()
    rules = requests(install)[2]
    network.client._ask(rules, "")
    found = read_links(install)
    assert str(found.bridges["demo", "lab"].cidr) == CIDR
    assert (found.bridges["demo", "lab"].up, found.taps["demo", "web"].up) == (True, True)
    assert network.client.show_rules(install=install).rules == {("demo", "lab"): (rules.digest, True)}
    assert network.no_tap()
    assert network.no_bridge()
    assert names() - {"up0", "up1"} == set()
    assert subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == b""
    if Path(FORWARDING).exists():
        assert Path(FORWARDING).read_text() == "0\n"


def test_a_command_that_outlives_its_helper_keeps_the_lock(network: Network, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    os.mkfifo(started)
    os.mkfifo(gate)
    slow = tmp_path / "nft"
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in "-f -") echo > {started}; read _ < {gate};; esac\nexec {shutil.which("nft")} "$@"\n'
    )
    slow.chmod(0o755)
    network.bridge()
    raw = Raw(f"from reconciler.helper import run; run._FOLDERS = ({str(tmp_path)!r},)")
    raw.send(requests(network.install)[2])
    started.read_text()
    raw.end()
    with LOCK.open() as lock:
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            gate.write_text("go\n")
        fcntl.flock(lock, fcntl.LOCK_EX)  # free once the command is done
    _assert_converges(network, network.install)


def test_a_client_survives_its_helper(network: Network, helper: HelperClient) -> None:
    network.bridge()
    child = helper._connection.process  # type: ignore[union-attr]
    child.kill()
    child.wait()
    assert network.no_bridge()


def test_roots_own_helper_has_no_more_rights_than_the_service(network: Network, helper: HelperClient) -> None:
    network.bridge()
    child = helper._connection.process  # type: ignore[union-attr]
    status = dict(line.split(":\t") for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
    service = 1 << 12 | 1 << 10  # CAP_NET_ADMIN, CAP_NET_BIND_SERVICE
    for kind, most in (("CapEff", service), ("CapPrm", service), ("CapBnd", service), ("CapInh", 0), ("CapAmb", 0)):
        assert int(status[kind], 16) == most, kind
    assert status["NoNewPrivs"] == "1"


def test_little_of_the_host_is_exposed_to_the_service() -> None:
    unit = ROOT / "systemd/banger-helper.service"
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no systemd-analyze that judges a unit by its file (systemd 250 and newer do)")
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found
    assert float(found[1]) <= 4.0


def test_the_helper_ends_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
from pathlib import Path
from reconciler.drivers.network.connect import open_helper
client = open_helper(uid=0, log=Path({str(tmp_path)!r}) / "log")
print(client._connection.process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        import select

        assert select.select([pidfd], [], [], 20)[0]
        os.close(pidfd)


def test_a_refusal_of_the_kernel_is_a_failure_that_says_what(install: str) -> None:
    raw = Raw(
        "import os; import reconciler.helper.server, reconciler.helper.privileges, encodings.idna; os.setgid(4321); os.setuid(4321)"
    )
    client = HelperClient(lambda: raw)
    with pytest.raises((Refusal, HelperLostError)) as caught:
        client.ensure_bridge(install=install, environment="demo", network="lab", cidr=CIDR, mtu=1500)
    assert "helper.lock" in str(caught.value)
    raw.end()
    assert names() == set()
