"""Policy: what is agreed to, as tables."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.helper import policy
from reconciler.helper.links import Link, Route, World
from reconciler.helper.names import BRIDGE_GROUP, LinkKind, LinkOwner, owner_of, parse_alias
from reconciler.helper.protocol import (
    Code,
    DeleteBridge,
    DeleteTap,
    EnsureBridge,
    EnsureTap,
    Envelope,
    Refusal,
    Request,
)

INSTALL = "0123456789ab"
UID = 1000
BRIDGE = EnsureBridge(install=INSTALL, environment="demo", network="lab", cidr="172.30.7.0/24", mtu=1500)
TAP = EnsureTap(install=INSTALL, environment="demo", network="lab", vm="web", mtu=1500)
DROP_BRIDGE = DeleteBridge(install=INSTALL, environment="demo", network="lab")
DROP_TAP = DeleteTap(install=INSTALL, environment="demo", vm="web")

OUR_BRIDGE = LinkOwner(INSTALL, UID, "demo", LinkKind.BRIDGE, "lab")
OUR_TAP = LinkOwner(INSTALL, UID, "demo", LinkKind.TAP, "web")


def link(owner: LinkOwner, **more: object) -> Link:
    kind = "bridge" if owner.kind is LinkKind.BRIDGE else "tap"
    return replace(Link(name=owner.interface, kind=kind, alias=owner.alias), **more)  # type: ignore[arg-type]


def world(*links: Link, routes: tuple[Route, ...] = ()) -> World:
    return World({found.name: found for found in links}, routes)


def code_of(call: object, *arguments: object) -> Code | None:
    try:
        call(*arguments)  # type: ignore[operator]
    except Refusal as refusal:
        return refusal.code
    return None


NAMES = ["", "a" * 32, "..", "-x", "a/b", "a\0", "a\n", "a b", "a:b", "a%d", "Web", "1a", "wеb", "a_b", "a.b", "$(id)"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["environment", "network", "vm"])
def test_names_that_are_refused(field: str, name: str) -> None:
    envelope = Envelope("a1", "", replace(TAP, **{field: name}))
    assert code_of(policy.check, UID, envelope) is Code.BAD_NAME


@pytest.mark.parametrize(
    "install", ["", "0123456789a", "0123456789abc", "0123456789AB", "../etc/passw", "0123456789ab\n"]
)
def test_install_ids_that_are_refused(install: str) -> None:
    assert code_of(policy.check, UID, Envelope("a1", "", replace(DROP_TAP, install=install))) is Code.BAD_NAME


CIDRS = [
    "172.30.7.1/24", "10.0.0.0/0", "10.0.0.0/8", "10.0.0.0/15", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32", "10.0.0.0/33",
    "127.0.0.0/24", "169.254.0.0/24", "224.0.0.0/24", "240.0.0.0/24", "8.8.8.0/24", "100.64.0.0/24", "172.32.0.0/24",
    "010.0.0.0/24", "10.0.0.0/024", "10.0.0.0/24 ", " 10.0.0.0/24", "10.0.0.0/24\n", "10.0.0/24", "10.0.0.0", "10.0.0.0/",
    "10.0.0.0/255.255.255.0", "0x0a.0.0.0/24", "::ffff:10.0.0.0/120", "fd00::/64", "10.0.0.256/24", "١٠.0.0.0/24", "",
]  # fmt: skip


@pytest.mark.parametrize("cidr", CIDRS)
def test_networks_that_are_refused(cidr: str) -> None:
    assert code_of(policy.check, UID, Envelope("a1", "", replace(BRIDGE, cidr=cidr))) is Code.BAD_CIDR


@pytest.mark.parametrize(
    "cidr", ["10.0.0.0/16", "10.255.255.248/29", "172.16.0.0/24", "172.31.255.0/24", "192.168.0.0/16"]
)
def test_networks_that_are_accepted(cidr: str) -> None:
    assert code_of(policy.check, UID, Envelope("a1", "", replace(BRIDGE, cidr=cidr))) is None


@given(st.text(alphabet="0123456789./", max_size=20))
def test_whatever_is_accepted_is_private_and_canonical(cidr: str) -> None:
    try:
        network = policy.parse_cidr(cidr)
    except Refusal:
        return
    assert network.is_private
    assert str(network) == cidr


@pytest.mark.parametrize(("mtu", "code"), [(0, Code.BAD_MTU), (1279, Code.BAD_MTU), (1280, None), (9000, None), (9001, Code.BAD_MTU), (65536, Code.BAD_MTU), (-1, Code.BAD_MTU)])  # fmt: skip
def test_mtu(mtu: int, code: Code | None) -> None:
    assert code_of(policy.check, UID, Envelope("a1", "", replace(TAP, mtu=mtu))) is code
    assert code_of(policy.check, UID, Envelope("a1", "", replace(BRIDGE, mtu=mtu))) is code


@pytest.mark.parametrize(
    ("uid", "envelope", "code"),
    [
        (65534, Envelope("a1", "", TAP), Code.BAD_IDENTITY),
        (UID, Envelope("", "", TAP), Code.BAD_FIELD),
        (UID, Envelope("a" * 65, "", TAP), Code.BAD_FIELD),
        (UID, Envelope("a1", "line\nline", TAP), Code.BAD_FIELD),
        (UID, Envelope("a1", "", TAP), None),
        (0, Envelope("a1", "apply/7:web", TAP), None),
    ],
)
def test_envelopes(uid: int, envelope: Envelope, code: Code | None) -> None:
    assert code_of(policy.check, uid, envelope) is code


address = IPv4Interface("172.30.7.1/24")
HALF = Link(name=OUR_BRIDGE.interface, kind="bridge", group=BRIDGE_GROUP)
OTHER_UID = replace(OUR_BRIDGE, uid=1001)
WORLDS: dict[str, tuple[Request, World, Code | None]] = {
    "an empty host": (BRIDGE, world(), None),
    "a tap without its bridge": (TAP, world(), Code.NO_BRIDGE),
    "a tap on a half-made bridge": (TAP, world(HALF), Code.NO_BRIDGE),
    "a tap on its bridge": (TAP, world(link(OUR_BRIDGE)), None),
    "the same bridge again": (BRIDGE, world(link(OUR_BRIDGE, addresses=(address,))), None),
    "a half-made bridge": (BRIDGE, world(HALF), None),
    "deleting a half-made bridge": (DROP_BRIDGE, world(HALF), None),
    "deleting what is absent": (DROP_BRIDGE, world(), None),
    "deleting an absent tap": (DROP_TAP, world(), None),
    "our name without alias and group": (BRIDGE, world(replace(HALF, group=0)), Code.FOREIGN_LINK),
    "our name, a dummy of our group": (BRIDGE, world(replace(HALF, kind="dummy")), Code.FOREIGN_LINK),
    "our name and another's alias": (BRIDGE, world(link(OUR_BRIDGE, alias=OTHER_UID.alias)), Code.FOREIGN_LINK),
    "our name and a made-up alias": (DROP_BRIDGE, world(link(OUR_BRIDGE, alias="mine")), Code.FOREIGN_LINK),
    "our tap's name on a tun": (TAP, world(link(OUR_BRIDGE), link(OUR_TAP, kind="tun")), Code.FOREIGN_LINK),
    "our tap's name without alias": (DROP_TAP, world(link(OUR_TAP, alias=None)), Code.FOREIGN_LINK),
    "a foreign port": (DROP_BRIDGE, world(link(OUR_BRIDGE), Link(name="veth0", master=OUR_BRIDGE.interface)), Code.FOREIGN_PORT),
    "another uid's tap as a port": (
        DROP_BRIDGE,
        world(link(OUR_BRIDGE), link(replace(OUR_TAP, uid=1001), master=OUR_BRIDGE.interface)),
        Code.FOREIGN_PORT,
    ),
    "a port of ours": (DROP_BRIDGE, world(link(OUR_BRIDGE), link(OUR_TAP, master=OUR_BRIDGE.interface)), None),
    "an address that overlaps": (
        BRIDGE, world(Link(name="eth0", addresses=(IPv4Interface("172.30.7.99/32"),))), Code.CIDR_TAKEN,
    ),
    "a route that overlaps": (BRIDGE, world(routes=(Route(IPv4Network("172.16.0.0/12"), "tun0"),)), Code.CIDR_TAKEN),
    "a blackhole that overlaps": (BRIDGE, world(routes=(Route(IPv4Network("172.30.7.8/29"), None),)), Code.CIDR_TAKEN),
    "our own routes": (
        BRIDGE,
        world(link(OUR_BRIDGE), routes=(Route(IPv4Network("172.30.7.0/24"), OUR_BRIDGE.interface),)),
        None,
    ),
    "a VPN over what we have": (
        BRIDGE,
        world(link(OUR_BRIDGE, addresses=(address,)), routes=(Route(IPv4Network("172.16.0.0/12"), "tun0"),)),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORLDS)
def test_worlds(case: str) -> None:
    request, existing, code = WORLDS[case]
    assert code_of(policy.permit, UID, request, existing) is code


@pytest.mark.parametrize(
    ("request_", "kind", "most"), [(BRIDGE, LinkKind.BRIDGE, policy.MAX_BRIDGES), (TAP, LinkKind.TAP, policy.MAX_TAPS)]
)
def test_one_more_than_the_quota(request_: Request, kind: LinkKind, most: int) -> None:
    others = [link(LinkOwner(INSTALL, UID, "other", kind, f"n{i}")) for i in range(most)]
    base = [link(OUR_BRIDGE)] if kind is LinkKind.TAP else []
    assert code_of(policy.permit, UID, request_, world(*base, *others[1:])) is None
    assert code_of(policy.permit, UID, request_, world(*base, *others)) is Code.QUOTA
    # What exists already is not one more.
    mine = link(policy.subject(UID, request_))
    assert code_of(policy.permit, UID, request_, world(*base, mine, *others)) is None
    assert code_of(policy.permit, 1001, BRIDGE, world(*others)) is None


def test_corpses_are_only_what_nobody_uses() -> None:
    half = [replace(HALF, name=f"bgb-000000000{i}") for i in range(4)]
    port = Link(name="veth0", master=half[1].name)
    existing = world(half[0], half[1], replace(half[2], up=True), replace(half[3], group=0), port, link(OUR_BRIDGE))
    assert policy.corpses(existing) == [half[0].name]


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
