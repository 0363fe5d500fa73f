"""Names, aliases and addresses that the helper derives, and recognises again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.helper.names import LinkKind, LinkOwner, address6, owner_of, parse_alias
from reconciler.model.ids import mac_address

INSTALL = "0123456789ab"
OUR_BRIDGE = LinkOwner(INSTALL, 1000, "demo", LinkKind.BRIDGE, "lab")
OUR_TAP = LinkOwner(INSTALL, 1000, "demo", LinkKind.TAP, "web")

names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
owners = st.builds(
    LinkOwner,
    st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    st.integers(0, 2**32 - 1),
    names,
    st.sampled_from(LinkKind),
    names,
)


@given(owners)
def test_an_alias_names_its_owner(owner: LinkOwner) -> None:
    assert parse_alias(owner.alias) == owner
    assert owner_of(owner.interface, owner.alias) == owner
    assert owner_of("eth0", owner.alias) is None
    assert len(owner.interface) <= 15
    assert len(owner.alias) < 256


@given(owners, owners)
def test_different_owners_have_different_links(one: LinkOwner, other: LinkOwner) -> None:
    assert (one.interface == other.interface) == (one == other)


ALIASES = [None, "", "banger:", f"{OUR_TAP.alias}\n", f" {OUR_TAP.alias}", OUR_TAP.alias.replace(":1000:", ":01000:"), OUR_TAP.alias.replace("vm/", "pod/")]  # fmt: skip


@pytest.mark.parametrize("alias", ALIASES)
def test_a_malformed_alias_is_foreign(alias: str | None) -> None:
    assert parse_alias(alias) is None


def test_a_mac_is_unicast_and_local() -> None:
    assert int(OUR_BRIDGE.mac[:2], 16) & 3 == 2


@given(names, names)
def test_a_guests_mac_is_the_one_that_the_model_gives_it(environment: str, vm: str) -> None:
    assert LinkOwner(INSTALL, 1000, environment, LinkKind.TAP, vm).guest_mac == mac_address(INSTALL, environment, vm)


@given(st.integers(0, 2**16 - 1))
def test_an_ipv6_address_is_as_far_into_its_network(offset: int) -> None:
    cidr, cidr6 = IPv4Network("10.30.0.0/16"), IPv6Network("fd00:1:2:3::/64")
    found = address6(cidr, cidr6, IPv4Address("10.30.0.0") + offset)
    assert found == IPv6Address("fd00:1:2:3::") + offset
