"""A host with an uplink, somebody else's nft tables, and a network of two VMs that the helper makes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.helper.client import HelperClient
from tests.host.netns import CIDR
from tests.host.spaces import Guest, Outside, Space

CIDR6 = "fd00:1:2:3::/64"
ADDRESSES = {"web": "172.30.7.10", "db": "172.30.7.11"}
ADDRESSES6 = {"web": "fd00:1:2:3::a", "db": "fd00:1:2:3::b"}
GATEWAY, GATEWAY6 = "172.30.7.1", "fd00:1:2:3::1"
FOREIGN = """
table ip docker {
  chain FORWARD { type filter hook forward priority 0; policy accept; ip daddr 203.0.113.9 drop; }
}
table inet mine {
  set s { type ipv4_addr; elements = { 198.51.100.1 }; }
  chain input { type filter hook input priority 0; tcp dport 4711 drop; }
}
"""


@dataclass
class Lab:
    """A host with an uplink and a network of two VMs, made by the helper."""

    client: HelperClient
    install: str
    stack: ExitStack
    cidr6: str = CIDR6
    guests: dict[str, Guest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = Space(fresh=False)
        self.host.ip("link set lo up")
        subprocess.run(["nft", "-f", "-"], input=FOREIGN, text=True, check=True)
        self.outside = Outside(self.host)
        self.where = {"install": self.install, "environment": "demo", "network": "lab"}
        self.bridge = self.client.ensure_bridge(**self.where, cidr=CIDR, cidr6=self.cidr6, mtu=1500)
        for space in (self.host, self.outside):
            self.stack.callback(space.close)

    def rules(self, **more: Any) -> bool:
        wanted = {"digest": "0" * 16, "cidr": CIDR, "cidr6": self.cidr6, "nat": True, "isolated": False, "dns": True,
                  "restricted": False, "egress": (), "vms": tuple(ADDRESSES.items()), "ports": ()}  # fmt: skip
        return self.client.ensure_rules(**self.where, **(wanted | more))

    def guest(self, vm: str) -> Guest:
        if vm not in self.guests:
            tap = self.client.ensure_tap(**self.where, vm=vm, mtu=1500)
            six = (ADDRESSES6[vm], GATEWAY6) if self.cidr6 else ("", "")
            self.guests[vm] = Guest(tap, self.install, vm, ADDRESSES[vm], GATEWAY, *six)
            self.stack.callback(self.guests[vm].close)
        return self.guests[vm]

    def shown(self) -> tuple[str, bool]:
        return self.client.show_rules(install=self.install).rules["demo", "lab"]

    @property
    def web(self) -> Guest:
        return self.guest("web")

    @property
    def db(self) -> Guest:
        return self.guest("db")


@pytest.fixture(name="lab")
def lab_fixture(helper: HelperClient, install: str) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(helper, install, stack)


def foreign() -> str:
    """The tables that are not ours, as nft lists them."""
    listings = [
        subprocess.run(["nft", "list", "table", *table.split()], capture_output=True, text=True, check=True).stdout
        for table in ("ip docker", "inet mine")
    ]
    return "".join(listings)
