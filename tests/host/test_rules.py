"""The rules of networks, as packets see them: who reaches whom, and from which address."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from reconciler.helper.names import LinkKind
from reconciler.helper.protocol import Code, Refusal
from tests.host.controlling import until
from tests.host.lab import (
    ADDRESSES,
    ADDRESSES6,
    CIDR6,
    GATEWAY,
    GATEWAY6,
    Lab,
    lab_fixture,  # noqa: F401 - a fixture
)
from tests.host.netns import (
    CIDR,
    MARKS,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    namespace_fixture,  # noqa: F401 - a fixture
    owner,
)
from tests.host.spaces import Outside, frame, ipv4

pytestmark = MARKS


@pytest.fixture(params=["1", "0"], autouse=True)
def bridged_packets_call_iptables(namespace: None, request: pytest.FixtureRequest) -> str:
    """Whether packets between two ports of a bridge pass the inet tables too (bridge-nf-call-iptables), as Docker has it."""
    for name in ("iptables", "ip6tables", "arptables"):
        path = Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}")
        if not path.exists() and request.param == "1":
            pytest.skip("no br_netfilter")
        if path.exists():
            path.write_text(request.param)
    return str(request.param)


def test_everybody_reaches_whom_they_should(lab: Lab) -> None:
    lab.rules()
    assert lab.web.reaches(ADDRESSES["db"], 80, lab.db, "0.0.0.0") == ADDRESSES["web"]
    assert lab.web.reaches(ADDRESSES6["db"], 80, lab.db, "::") == ADDRESSES6["web"]
    assert lab.web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") == ADDRESSES["web"]
    assert lab.web.reaches(GATEWAY6, 80, lab.host, "::") == ADDRESSES6["web"]
    assert lab.host.reaches(ADDRESSES["web"], 80, lab.web, "0.0.0.0") == GATEWAY
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.web.reaches(Outside.ADDRESS6, 80, lab.outside, "::") == Outside.HOST6


def test_nothing_from_outside_reaches_a_vm_by_itself(lab: Lab) -> None:
    lab.rules()
    lab.outside.ip(f"route add {CIDR} via {Outside.HOST}")
    lab.outside.ip(f"route add {CIDR6} via {Outside.HOST6}")
    assert lab.outside.reaches(ADDRESSES["web"], 80, lab.web, "0.0.0.0") is None
    assert lab.outside.reaches(ADDRESSES6["web"], 80, lab.web, "::") is None
    assert lab.outside.reaches(GATEWAY, 80, lab.host, "0.0.0.0") is None
    assert lab.outside.reaches(Outside.HOST, 80, lab.host, "0.0.0.0") == Outside.ADDRESS


def test_without_nat_there_is_no_outside(lab: Lab) -> None:
    lab.rules(nat=False, ports=[("", 8080, "tcp", "web", 80)])
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") is None
    assert lab.web.reaches(Outside.ADDRESS6, 80, lab.outside, "::") is None
    assert lab.web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") == ADDRESSES["web"]
    assert lab.web.reaches(ADDRESSES["db"], 80, lab.db, "0.0.0.0") == ADDRESSES["web"]
    assert lab.outside.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80) == Outside.ADDRESS


def test_a_published_port_is_reached_from_everywhere(lab: Lab, bridged_packets_call_iptables: str) -> None:
    lab.rules(ports=[("", 8080, "tcp", "web", 80)])
    ways = {
        "outside": lab.outside.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80),
        "outside, IPv6": lab.outside.reaches(Outside.HOST6, 8080, lab.web, "::", 80),
        "loopback": lab.host.reaches("127.0.0.1", 8080, lab.web, "0.0.0.0", 80),
        "the host's address": lab.host.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80),
        "the host's address, IPv6": lab.host.reaches(Outside.HOST6, 8080, lab.web, "::", 80),
        "a neighbour": lab.db.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80),
        "a neighbour, by the gateway": lab.db.reaches(GATEWAY, 8080, lab.web, "0.0.0.0", 80),
        "a neighbour, IPv6": lab.db.reaches(GATEWAY6, 8080, lab.web, "::", 80),
    }
    assert ways == {
        "outside": Outside.ADDRESS,
        "outside, IPv6": Outside.ADDRESS6,
        "loopback": GATEWAY,
        "the host's address": Outside.HOST,
        "the host's address, IPv6": Outside.HOST6,
        "a neighbour": GATEWAY,
        "a neighbour, by the gateway": GATEWAY,
        "a neighbour, IPv6": GATEWAY6,
    }
    if bridged_packets_call_iptables == "0":  # else the packet would leave by the port that it came from
        assert lab.web.reaches(GATEWAY, 8080, lab.web, "0.0.0.0", 80) == GATEWAY
    # ::1 cannot be led elsewhere; it is refused at once, so that a program that tries it first goes on to 127.0.0.1.
    with pytest.raises(ConnectionRefusedError):
        lab.host.call(lambda: socket.create_connection(("::1", 8080), 5))


def test_a_port_published_on_one_address_is_there_only(lab: Lab) -> None:
    lab.rules(ports=[("127.0.0.1", 8080, "tcp", "web", 80), (Outside.HOST6, 8081, "tcp", "db", 80)])
    assert lab.host.reaches("127.0.0.1", 8080, lab.web, "0.0.0.0", 80) == GATEWAY
    assert lab.outside.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80) is None
    assert lab.outside.reaches(Outside.HOST6, 8081, lab.db, "::", 80) == Outside.ADDRESS6
    assert lab.outside.reaches(Outside.HOST, 8081, lab.db, "0.0.0.0", 80) is None


def test_udp_is_published_too(lab: Lab) -> None:
    lab.rules(ports=[("", 5353, "udp", "web", 53)])
    with (
        lab.web.listen("0.0.0.0", 53, socket.SOCK_DGRAM) as server,
        lab.outside.listen("0.0.0.0", 0, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"?", (Outside.HOST, 5353))
        asked, back = server.recvfrom(9)
        server.sendto(b"!", back)
        assert (asked, back[0], client.recvfrom(9)) == (b"?", Outside.ADDRESS, (b"!", (Outside.HOST, 5353)))


def test_the_hosts_own_loopback_stays_its_own(lab: Lab) -> None:
    lab.rules(ports=[("127.0.0.1", 8080, "tcp", "web", 80)])
    bridge_mac = owner(lab.install, LinkKind.BRIDGE, "lab").mac
    with (
        lab.host.listen("127.0.0.1", 9, socket.SOCK_DGRAM) as inner,
        lab.host.listen(GATEWAY, 9, socket.SOCK_DGRAM) as outer,
    ):
        for target in ("127.0.0.1", GATEWAY):  # in order: when the second is there, the first would be
            lab.web.send(frame(lab.web.mac, bridge_mac, 0x0800, ipv4(ADDRESSES["web"], target)))
        assert outer.recvfrom(9)[1][0] == ADDRESSES["web"]
        inner.settimeout(0)
        with pytest.raises(BlockingIOError):
            inner.recv(9)


def test_isolated_vms_reach_the_outside_and_dns_alone(lab: Lab) -> None:
    lab.rules(isolated=True, ports=[("", 8080, "tcp", "db", 80)])
    assert lab.web.reaches(ADDRESSES["db"], 80, lab.db, "0.0.0.0") is None
    assert lab.web.reaches(ADDRESSES6["db"], 80, lab.db, "::") is None
    assert lab.web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") is None
    assert lab.web.reaches(GATEWAY6, 80, lab.host, "::") is None
    assert lab.web.reaches(Outside.HOST, 80, lab.host, "0.0.0.0") is None
    assert lab.web.reaches(Outside.HOST, 8080, lab.db, "0.0.0.0", 80) is None
    assert lab.web.reaches(GATEWAY, 53, lab.host, "0.0.0.0") == ADDRESSES["web"]
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.host.reaches(ADDRESSES["web"], 80, lab.web, "0.0.0.0") == GATEWAY
    assert lab.outside.reaches(Outside.HOST, 8080, lab.db, "0.0.0.0", 80) == Outside.ADDRESS
    # Nor by way of the host, for one that pretends that its neighbour is elsewhere.
    lab.web.ip(f"route add {ADDRESSES['db']} via {GATEWAY}")
    assert lab.web.reaches(ADDRESSES["db"], 80, lab.db, "0.0.0.0") is None


def test_egress_holds_for_addresses_ports_and_protocols(lab: Lab) -> None:
    lab.outside.ip("addr add 192.0.2.3/24 dev eth0")
    lab.rules(
        restricted=True,
        egress=[("192.0.2.2/32", "tcp", 80, 81), ("192.0.2.3/32", "udp", 0, 0), ("2001:db8::/64", "any", 0, 0)],
    )
    assert lab.web.reaches("192.0.2.2", 80, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.web.reaches("192.0.2.2", 81, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.web.reaches("192.0.2.2", 82, lab.outside, "0.0.0.0") is None
    assert lab.web.reaches("192.0.2.3", 80, lab.outside, "0.0.0.0") is None
    assert lab.web.reaches(Outside.ADDRESS6, 99, lab.outside, "::") == Outside.HOST6
    assert lab.web.reaches(GATEWAY, 53, lab.host, "0.0.0.0") == ADDRESSES["web"]
    assert lab.web.reaches(ADDRESSES["db"], 80, lab.db, "0.0.0.0") == ADDRESSES["web"]
    # What is refused is told so, rather than left to wait.
    with pytest.raises(OSError, match=r"unreachable|No route"):
        lab.web.call(lambda: socket.create_connection(("192.0.2.2", 82), 5))


def test_egress_follows_the_addresses_of_a_name(lab: Lab) -> None:
    egress = [("deb.debian.org", "tcp", 80, 80), ("*.example.org", "any", 0, 0)]
    lab.rules(restricted=True, egress=egress)
    allow = partial(lab.client.allow_addresses, **lab.where, seconds=60)
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") is None
    assert allow(name="deb.debian.org", addresses=[Outside.ADDRESS])
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.web.reaches(Outside.ADDRESS, 81, lab.outside, "0.0.0.0") is None
    assert allow(name="*.example.org", addresses=[Outside.ADDRESS6, Outside.ADDRESS])
    assert lab.web.reaches(Outside.ADDRESS6, 99, lab.outside, "::") == Outside.HOST6
    # Neither counts as a change of the rules, and a change of the rules forgets neither.
    assert lab.shown() == ("0" * 16, True)
    assert lab.rules(restricted=True, egress=egress, digest="1" * 16)
    assert lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") == Outside.HOST
    assert lab.rules(restricted=True, egress=egress[:1], digest="2" * 16)
    assert lab.web.reaches(Outside.ADDRESS6, 99, lab.outside, "::") is None
    with pytest.raises(Refusal) as caught:
        allow(name="*.example.org", addresses=[Outside.ADDRESS])
    assert caught.value.code is Code.NO_RULES


def test_an_address_of_a_name_is_forgotten_in_time(lab: Lab) -> None:
    lab.rules(restricted=True, egress=[("deb.debian.org", "any", 0, 0)])
    allow = partial(lab.client.allow_addresses, **lab.where, name="deb.debian.org", addresses=[Outside.ADDRESS])
    allow(seconds=60)
    # The last answer counts, also if it is the shorter one.
    allow(seconds=1)
    until(lambda: lab.web.reaches(Outside.ADDRESS, 80, lab.outside, "0.0.0.0") is None, "an end of the permission")
