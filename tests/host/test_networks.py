"""Real bridges and taps, made by a real helper, each test in a network namespace of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import IO

import pytest

from reconciler.drivers.network.probe import read_links
from reconciler.helper.names import BRIDGE_GROUP, LinkKind
from reconciler.lib.errors import BangerError
from tests.host.netns import (
    CIDR,
    MARKS,
    Network,
    attach,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    ip,
    names,
    namespace_fixture,  # noqa: F401 - a fixture
    network_fixture,  # noqa: F401 - a fixture
    owner,
    shown,
)

pytestmark = MARKS


def test_the_life_of_a_network(network: Network, install: str) -> None:
    bridge_name, tap_name = network.bridge(), network.tap()
    found = read_links(install)
    observed = found.bridges["demo", "lab"]
    assert (observed.name, observed.mtu, observed.up, str(observed.cidr), observed.ports) == (bridge_name, 1500, True, CIDR, (tap_name,))  # fmt: skip
    port = found.taps["demo", "web"]
    assert (port.name, port.mtu, port.up, port.carrier, port.master, port.owner) == (tap_name, 1500, True, False, bridge_name, 0)  # fmt: skip
    assert json.loads(ip("-j", "-6", "addr", "show", "dev", bridge_name)) in ([], [{}])
    assert (network.no_tap(), network.no_tap(), network.no_bridge(), network.no_bridge()) == (True, False, True, False)
    assert names() == set()


def test_ensuring_what_is_right_writes_nothing(network: Network) -> None:
    network.bridge()
    network.tap()
    with subprocess.Popen(["ip", "monitor", "link", "address", "route"], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        # The monitor is listening once it shows one of the marks that are made until then.
        ready = threading.Event()

        def mark() -> None:
            while not ready.is_set():
                subprocess.run(["ip", "link", "add", "mark0", "type", "bridge"], check=True)
                subprocess.run(["ip", "link", "delete", "mark0"], check=True)

        marker = threading.Thread(target=mark)
        marker.start()
        assert "mark0" in monitor.stdout.readline()
        ready.set()
        marker.join()
        # The kernel tells of a link's new state up to a second late. Such an echo of the set-up ends; a helper that
        # writes would do so in every round.
        rounds = [events_of_a_round(network, monitor.stdout, number) for number in range(6)]
        monitor.kill()
    assert [] in rounds, rounds


def events_of_a_round(network: Network, monitor: IO[str], number: int) -> list[str]:
    """What is told of our links while they are ensured again, between two marks."""
    first, last = f"a{number}", f"z{number}"
    ip("link", "add", first, "type", "bridge")
    for _ in range(3):
        network.bridge()
        network.tap()
    ip("link", "add", last, "type", "bridge")
    events: list[str] = []
    for line in monitor:
        events.append(line)
        if f": {last}:" in line:
            break
    start = next(index for index, line in enumerate(events) if f": {first}:" in line)
    return [line for line in events[start:] if "bg" in line]


def test_a_carrier_tells_that_a_vmm_is_there(network: Network, install: str) -> None:
    network.bridge()
    fd = attach(network.tap())
    assert read_links(install).taps["demo", "web"].carrier
    os.close(fd)
    assert not read_links(install).taps["demo", "web"].carrier


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU")
def test_qemu_opens_the_tap(network: Network, install: str) -> None:
    network.bridge()
    name = network.tap()
    netdev = f"tap,id=n,ifname={name},script=no,downscript=no"
    argv = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-netdev", netdev, "-qmp", "stdio"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdout is not None
        assert "QMP" in qemu.stdout.readline()
        assert read_links(install).taps["demo", "web"].carrier
        qemu.kill()
    assert read_links(install).taps["demo", "web"].name == name


DRIFTS: dict[str, Callable[[str, str], str]] = {
    "bridge down": lambda b, _: ip("link", "set", b, "down"),
    "bridge mtu": lambda b, _: ip("link", "set", b, "mtu", "1400"),
    "bridge address lost": lambda b, _: ip("addr", "flush", "dev", b),
    "bridge address added": lambda b, _: ip("addr", "add", "10.99.0.1/24", "dev", b),
    "bridge address behind another": lambda b, _: (
        ip("addr", "flush", "dev", b) + ip("addr", "add", "172.30.7.9/24", "dev", b) + ip("addr", "add", "172.30.7.1/24", "dev", b)
    ),
    "bridge mac": lambda b, _: ip("link", "set", b, "address", "02:00:00:00:00:01"),
    "bridge alias lost": lambda b, _: ip("link", "set", b, "alias", ""),
    "bridge lost": lambda b, _: ip("link", "delete", b),
    "tap down": lambda _, t: ip("link", "set", t, "down"),
    "tap mtu": lambda _, t: ip("link", "set", t, "mtu", "1400"),
    "tap off its bridge": lambda _, t: ip("link", "set", t, "nomaster"),
    "tap lost": lambda _, t: ip("link", "delete", t),
}  # fmt: skip


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_repaired(drift: str, network: Network, install: str) -> None:
    bridge_name, tap_name = network.bridge(), network.tap()
    before = read_links(install)
    DRIFTS[drift](bridge_name, tap_name)
    network.bridge()
    network.tap()
    assert read_links(install) == before


def test_a_tap_that_another_user_owns_is_given_back(network: Network, install: str) -> None:
    network.bridge()
    name = network.tap()
    fd = attach(name)
    fcntl.ioctl(fd, 0x400454CC, 4321)
    with pytest.raises(BangerError, match="in-use") as caught:
        network.tap()
    assert caught.value.error_class.worth_retrying
    os.close(fd)
    network.tap()
    assert read_links(install).taps["demo", "web"].owner == 0


def test_another_cidr_replaces_the_old_one(network: Network, install: str) -> None:
    network.bridge()
    network.bridge(cidr="10.77.0.0/16", mtu=9000)
    observed = read_links(install).bridges["demo", "lab"]
    assert observed.addresses == (IPv4Interface("10.77.0.1/16"),)
    assert observed.mtu == 9000


def test_taps_do_not_change_the_bridge(network: Network) -> None:
    name = network.bridge()
    before = shown()[name]["address"]  # type: ignore[index]
    network.tap("a", mtu=1300)
    network.tap("b")
    assert shown()[name]["address"] == before  # type: ignore[index]
    assert shown()[name]["mtu"] == 1500  # type: ignore[index]


def test_a_taken_network_is_refused(network: Network, install: str) -> None:
    ip("tuntap", "add", "foreign0", "mode", "tap")
    ip("link", "set", "foreign0", "up")
    ip("route", "add", "172.30.0.0/16", "dev", "foreign0")
    before = shown()
    with pytest.raises(BangerError, match=r"overlaps the route to 172\.30\.0\.0/16 over foreign0"):
        network.bridge()
    assert shown() == before


FOREIGN = {
    "a bridge without alias": ["link add BRIDGE type bridge"],
    "a bridge with an alias": [
        f"link add BRIDGE group {BRIDGE_GROUP} type bridge",
        "link set BRIDGE alias banger:somebody",
    ],
    "a tap of our group": ["tuntap add BRIDGE mode tap", f"link set BRIDGE group {BRIDGE_GROUP}"],
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_link_with_our_name_is_left_alone(case: str, network: Network, install: str) -> None:
    name = owner(install, LinkKind.BRIDGE, "lab").interface
    for command in FOREIGN[case]:
        ip(*command.replace("BRIDGE", name).split())
    ip("link", "add", "name", "bgb-00000000", "group", str(BRIDGE_GROUP), "type", "bridge")
    before = shown()
    for call in (network.bridge, network.no_bridge):
        with pytest.raises(BangerError, match=f"{name} is a"):
            call()
    assert shown() == before


def test_a_foreign_port_keeps_its_bridge(network: Network) -> None:
    name = network.bridge()
    ip("tuntap", "add", "foreign0", "mode", "tap")
    ip("link", "set", "foreign0", "master", name)
    before = shown()
    with pytest.raises(BangerError, match="foreign0 is a port"):
        network.no_bridge()
    assert shown() == before
