"""Whom a guest asks for names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from reconciler.drivers.network import resolvers
from reconciler.execute.guests import nameservers_of
from reconciler.model.vm import Egress, Network

LAB = Network(name="lab", cidr=IPv4Network("172.30.7.0/24"), mtu=1500)
EGRESS = (Egress(to="10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({}, "172.30.7.1 10.0.0.2 10.0.0.3"),
        ({"dns": False}, "10.0.0.2 10.0.0.3"),
        ({"nat": False}, "172.30.7.1"),
        ({"nat": False, "dns": False}, ""),
        ({"egress": EGRESS}, "172.30.7.1"),
        ({"egress": ()}, "172.30.7.1"),
        ({"isolated": True}, "172.30.7.1 10.0.0.2 10.0.0.3"),
        ({"nameservers": (IPv4Address("9.9.9.9"),)}, "9.9.9.9"),
        ({"nameservers": ()}, ""),
    ],
)
def test_the_gateway_and_then_two_of_the_host_s(
    change: dict[str, Any], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tuple(IPv4Address(f"10.0.0.{last}") for last in (2, 3, 4))
    monkeypatch.setattr(resolvers, "upstream", lambda: host)
    assert " ".join(map(str, nameservers_of(replace(LAB, **change)))) == asked
