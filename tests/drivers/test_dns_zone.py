"""Which names exist, and what they are."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.drivers.network.dns.zone import Found, Host, Kind, Name, Zone

WEB = Host(environment="demo", name="web", address=IPv4Address("172.30.7.10"), address6=IPv6Address("fd00:7::a"))
DB = Host(environment="demo", name="db", address=IPv4Address("172.30.7.11"))
OTHER_DB = Host(environment="prod", name="db", address=IPv4Address("172.30.8.11"))
BARE = Host(environment="prod", name="bare")
SUBNETS = (IPv4Network("172.30.7.0/24"), IPv4Network("172.30.8.0/21"), IPv6Network("fd00:7::/64"))
ZONE = Zone((WEB, DB, OTHER_DB, BARE), SUBNETS)


def labels(text: str) -> Name:
    return tuple(text.encode().split(b".")) if text else ()


def find(text: str, kind: Kind = Kind.A) -> Found | None:
    return ZONE.find(labels(text), kind)


@pytest.mark.parametrize(
    ("name", "kind", "exists", "addresses"),
    [
        ("web.demo.vm", Kind.A, True, ["172.30.7.10"]),
        ("web.demo.vm", Kind.AAAA, True, ["fd00:7::a"]),
        ("web.demo.vm", Kind.OTHER, True, []),
        ("web.vm", Kind.A, True, ["172.30.7.10"]),
        ("web.vm", Kind.AAAA, True, ["fd00:7::a"]),
        ("db.demo.vm", Kind.A, True, ["172.30.7.11"]),
        ("db.demo.vm", Kind.AAAA, True, []),  # the name is there, the kind is not
        ("db.prod.vm", Kind.A, True, ["172.30.8.11"]),
        ("db.vm", Kind.A, False, []),  # two environments have one
        ("bare.vm", Kind.A, True, []),  # no address (yet)
        ("demo.vm", Kind.A, True, []),  # there are names below it
        ("vm", Kind.A, True, []),
        ("web.prod.vm", Kind.A, False, []),
        ("no.vm", Kind.A, False, []),
        ("www.web.demo.vm", Kind.A, False, []),
        ("webXdemo.vm", Kind.A, False, []),
    ],
)
def test_names(name: str, kind: Kind, exists: bool, addresses: list[str]) -> None:
    found = find(name, kind)
    assert found == Found(exists, (b"vm",), tuple(ip_address(text) for text in addresses))


@pytest.mark.parametrize("name", ["", "example.org", "vm.example.org", "devm", "arpa", "in-addr.arpa", "172.in-addr.arpa", "30.172.in-addr.arpa", "10.9.30.172.in-addr.invalid"])  # fmt: skip
def test_other_names_are_for_others(name: str) -> None:
    assert find(name) is None


def test_a_dot_in_a_label_makes_no_name() -> None:
    assert ZONE.find((b"web.demo", b"vm"), Kind.A) == Found(False, (b"vm",))


def test_a_vm_that_is_called_like_an_environment_has_the_short_name() -> None:
    zone = Zone([Host(environment="demo", name="demo", address=IPv4Address("10.0.0.2"))])
    found = zone.find(labels("demo.vm"), Kind.A)
    assert found is not None
    assert found.addresses == (IPv4Address("10.0.0.2"),)


@pytest.mark.parametrize(
    ("name", "exists", "apex", "owner"),
    [
        ("10.7.30.172.in-addr.arpa", True, "7.30.172.in-addr.arpa", "web.demo.vm"),
        ("12.7.30.172.in-addr.arpa", False, "7.30.172.in-addr.arpa", None),
        ("7.30.172.in-addr.arpa", True, "7.30.172.in-addr.arpa", None),
        # A network that ends inside an octet: the zone of the octet above.
        ("11.8.30.172.in-addr.arpa", True, "8.30.172.in-addr.arpa", "db.prod.vm"),
        ("1.15.30.172.in-addr.arpa", False, "15.30.172.in-addr.arpa", None),
        (f"a{'.0' * 15}.0.0.0.0.0.0.0.0.7.0.0.0.0.0.d.f.ip6.arpa", True, "0.0.0.0.0.0.0.0.7.0.0.0.0.0.d.f.ip6.arpa", "web.demo.vm"),
        (f"b{'.0' * 15}.0.0.0.0.0.0.0.0.7.0.0.0.0.0.d.f.ip6.arpa", False, "0.0.0.0.0.0.0.0.7.0.0.0.0.0.d.f.ip6.arpa", None),
    ],
)  # fmt: skip
def test_reverse_names_of_our_networks(name: str, exists: bool, apex: str, owner: str | None) -> None:
    found = find(name, Kind.PTR)
    assert found == Found(exists, labels(apex), names=(labels(owner),) if owner else ())


@pytest.mark.parametrize("name", ["1.16.30.172.in-addr.arpa", "10.6.30.172.in-addr.arpa", "1.0.0.127.in-addr.arpa", "8.8.8.8.in-addr.arpa"])  # fmt: skip
def test_reverse_names_of_other_networks_are_for_others(name: str) -> None:
    assert find(name, Kind.PTR) is None


@pytest.mark.parametrize("name", ["010.7.30.172.in-addr.arpa", "256.7.30.172.in-addr.arpa", "x.7.30.172.in-addr.arpa", "1.10.7.30.172.in-addr.arpa", "+1.7.30.172.in-addr.arpa"])  # fmt: skip
def test_what_is_no_reverse_name_is_not_ours(name: str) -> None:
    assert find(name, Kind.PTR) is None


@given(st.sampled_from(SUBNETS).flatmap(lambda net: st.integers(0, net.num_addresses - 1).map(lambda i: net[i])))
def test_every_address_of_ours_has_its_reverse_name_here(address: IPv4Address | IPv6Address) -> None:
    found = find(address.reverse_pointer, Kind.PTR)
    assert found is not None
    assert found.apex == labels(address.reverse_pointer)[-len(found.apex) :]


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=40).map(tuple), st.sampled_from(Kind))
def test_any_name_can_be_asked_for(name: Name, kind: Kind) -> None:
    for suffix in ((), (b"vm",), (b"in-addr", b"arpa"), (b"ip6", b"arpa")):
        found = ZONE.find((*name, *suffix), kind)
        assert found is None or isinstance(found, Found)
