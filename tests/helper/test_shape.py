"""From what exists to what is wanted, in commands: exactly these, in this order."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from reconciler.helper import shape
from reconciler.helper.links import Link, Route, parse_links, parse_routes
from reconciler.helper.names import BRIDGE_GROUP, LinkKind, LinkOwner

OWNER = LinkOwner("0123456789ab", 1000, "demo", LinkKind.BRIDGE, "lab")
TAP = replace(OWNER, kind=LinkKind.TAP, name="web")
ADDRESS = IPv4Interface("172.30.7.1/24")
RIGHT = Link(
    name=OWNER.interface, kind="bridge", alias=OWNER.alias, mac=OWNER.mac, mtu=1500, up=True, addresses=(ADDRESS,)
)
RIGHT_TAP = Link(name=TAP.interface, kind="tap", alias=TAP.alias, mtu=1500, up=True, master=OWNER.interface)

BRIDGES = {
    "right": (RIGHT, []),
    "down": (replace(RIGHT, up=False), ["link set dev B up"]),
    "another mtu": (replace(RIGHT, mtu=1400), ["link set dev B mtu 1500"]),
    "another mac": (replace(RIGHT, mac="02:00:00:00:00:00"), [f"link set dev B address {OWNER.mac}"]),
    "no address": (replace(RIGHT, addresses=()), ["address add 172.30.7.1/24 brd + dev B"]),
    "another address": (
        replace(RIGHT, addresses=(IPv4Interface("172.30.8.1/24"),)),
        ["address del 172.30.8.1/24 dev B", "address add 172.30.7.1/24 brd + dev B"],
    ),
    "one address too many": (
        replace(RIGHT, addresses=(ADDRESS, IPv4Interface("172.30.7.5/24"))),
        ["address del 172.30.7.5/24 dev B"],
    ),
    "half made": (
        Link(name=OWNER.interface, kind="bridge", mac=OWNER.mac),
        [
            f"link set dev B alias {OWNER.alias} addrgenmode none",
            "address add 172.30.7.1/24 brd + dev B",
            "link set dev B up",
        ],
    ),
    "absent": (
        None,
        [
            f"link add name B group {BRIDGE_GROUP} address {OWNER.mac} mtu 1499 type bridge stp_state 0 forward_delay 0",
            f"link set dev B alias {OWNER.alias} addrgenmode none",
            "link set dev B mtu 1500",
            "address add 172.30.7.1/24 brd + dev B",
            "link set dev B up",
        ],
    ),
}


@pytest.mark.parametrize("case", BRIDGES)
def test_bridges(case: str) -> None:
    link, expected = BRIDGES[case]
    commands = shape.bridge_commands(OWNER, link, address=ADDRESS, mtu=1500, ipv6=True)
    assert [" ".join(command).replace(OWNER.interface, "B") for command in commands] == expected


TAPS = {
    "right": (RIGHT_TAP, []),
    "off its bridge": (replace(RIGHT_TAP, master=None), ["link set dev T master B"]),
    "on another bridge": (replace(RIGHT_TAP, master="br0"), ["link set dev T master B"]),
    "drifted": (replace(RIGHT_TAP, mtu=1400, up=False), ["link set dev T mtu 1500 up"]),
    "new": (
        Link(name=TAP.interface, mtu=0),
        [f"link set dev T alias {TAP.alias}", "link set dev T mtu 1500 master B up"],
    ),
}


@pytest.mark.parametrize("case", TAPS)
def test_taps(case: str) -> None:
    link, expected = TAPS[case]
    commands = shape.tap_commands(TAP, link, bridge=OWNER.interface, mtu=1500, ipv6=False)
    named = [" ".join(command).replace(OWNER.interface, "B").replace(TAP.interface, "T") for command in commands]
    assert named == expected


def test_the_output_of_ip_is_read() -> None:
    text = """[{},{"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"group":"default","addr_info":[
      {"family":"inet","local":"127.0.0.1","prefixlen":8},{"family":"inet6","local":"::1","prefixlen":128}]},
      {"ifname":"t0","flags":[],"mtu":1500,"group":"7","master":"b0","ifalias":"x",
      "linkinfo":{"info_kind":"tun","info_data":{"type":"tap","user":"alice"}},"addr_info":[]}]"""
    assert parse_links(text) == {
        "lo": Link(name="lo", mtu=65536, up=True, addresses=(IPv4Interface("127.0.0.1/8"),)),
        "t0": Link(name="t0", kind="tap", alias="x", group=7, master="b0", tap_owner="alice"),
    }
    assert parse_links("") == {}


def test_routes_are_read_without_the_default_ones() -> None:
    text = """[{"dst":"default","dev":"eth0"},{"dst":"0.0.0.0/1","dev":"tun0"},{"dst":"128.0.0.0/1","dev":"tun0"},
      {"dst":"10.1.0.0/16","dev":"eth0"},{"type":"blackhole","dst":"10.9.0.1"}]"""
    assert parse_routes(text) == (Route(IPv4Network("10.1.0.0/16"), "eth0"), Route(IPv4Network("10.9.0.1/32"), None))
