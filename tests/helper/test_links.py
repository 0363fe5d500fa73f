"""From what exists to what is wanted on a link: exactly these changes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from reconciler.helper.links import Changes, Link, World, bridge_changes, tap_changes
from reconciler.helper.names import LinkKind, LinkOwner

OWNER = LinkOwner("0123456789ab", 1000, "demo", LinkKind.BRIDGE, "lab")
TAP = replace(OWNER, kind=LinkKind.TAP, name="web")
RIGHT = Link(name=OWNER.interface, index=7, kind="bridge", alias=OWNER.alias, mac=OWNER.mac, mtu=1500, up=True)
RIGHT_TAP = Link(
    name=TAP.interface, index=8, kind="tap", alias=TAP.alias, mtu=1500, up=True, master=7, group=OWNER.port_group
)

BRIDGES: dict[str, tuple[Link, Changes]] = {
    "right": (RIGHT, {}),
    "down": (replace(RIGHT, up=False), {"up": True}),
    "another mtu": (replace(RIGHT, mtu=1400), {"mtu": 1500}),
    "another mac": (replace(RIGHT, mac="02:00:00:00:00:00"), {"mac": OWNER.mac}),
    "half made": (
        Link(name=OWNER.interface, kind="bridge", mac=OWNER.mac, mtu=1499),
        {"mtu": 1500, "alias": OWNER.alias, "up": True},
    ),
}


@pytest.mark.parametrize("case", BRIDGES)
def test_bridges(case: str) -> None:
    link, expected = BRIDGES[case]
    assert bridge_changes(OWNER, link, mtu=1500) == expected


TAPS: dict[str, tuple[Link, Changes]] = {
    "right": (RIGHT_TAP, {}),
    "off its bridge": (replace(RIGHT_TAP, master=0), {"master": 7}),
    "on another bridge": (replace(RIGHT_TAP, master=3), {"master": 7}),
    "in another group": (replace(RIGHT_TAP, group=0), {"group": OWNER.port_group}),
    "drifted": (replace(RIGHT_TAP, mtu=1400, up=False), {"mtu": 1500, "up": True}),
    "new": (
        Link(name=TAP.interface, kind="tap", mtu=1400),
        {"mtu": 1500, "master": 7, "group": OWNER.port_group, "alias": TAP.alias, "up": True},
    ),
}


@pytest.mark.parametrize("case", TAPS)
def test_taps(case: str) -> None:
    link, expected = TAPS[case]
    assert tap_changes(TAP, link, bridge=RIGHT, mtu=1500) == expected


def test_the_hosts_own_interfaces_are_up_and_addressed() -> None:
    names = {"lo": 1, "eth0": 2, "eth1": 3, "down0": 4, "bgb-0123456789": 5, "bare0": 6}
    links = {name: Link(name=name, index=index, up=name != "down0") for name, index in names.items()}
    addresses = tuple((index, IPv4Interface(f"10.0.{index}.1/24")) for name, index in names.items() if name != "bare0")
    assert World(links, addresses).hosts() == ["eth0", "eth1"]
