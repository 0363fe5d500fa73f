"""Policy: what is agreed to, as tables."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.helper import policy
from reconciler.helper.links import Interface, Link, Network, World
from reconciler.helper.names import BRIDGE_GROUP, LinkKind, LinkOwner
from reconciler.helper.protocol import Code, Envelope, Op, Refusal, Request

INSTALL = "0123456789ab"
UID = 1000
BRIDGE = Request(
    op=Op.ENSURE_BRIDGE, install=INSTALL, environment="demo", network="lab", cidr="172.30.7.0/24", mtu=1500
)
TAP = Request(op=Op.ENSURE_TAP, install=INSTALL, environment="demo", network="lab", vm="web", mtu=1500)
DROP_BRIDGE = Request(op=Op.DELETE_BRIDGE, install=INSTALL, environment="demo", network="lab")
DROP_TAP = Request(op=Op.DELETE_TAP, install=INSTALL, environment="demo", vm="web")
RULES = Request(
    op=Op.ENSURE_RULES,
    install=INSTALL,
    environment="demo",
    network="lab",
    digest="0123456789abcdef",
    cidr="172.30.7.0/24",
    cidr6="fd00:1:2:3::/64",
    nat=True,
    dns=True,
    vms=(("web", "172.30.7.10"), ("db", "172.30.7.11")),
)
ALLOW = Request(
    op=Op.ALLOW_ADDRESSES,
    install=INSTALL,
    environment="demo",
    network="lab",
    name="deb.debian.org",
    addresses=("192.0.2.1",),
    seconds=60,
)
DNS = replace(DROP_BRIDGE, op=Op.DNS_SOCKETS)
SHOW = Request(op=Op.SHOW_RULES, install=INSTALL)
WATCH = Request(op=Op.WATCH_RULES, install=INSTALL, generation=7)

OUR_BRIDGE = LinkOwner(INSTALL, UID, "demo", LinkKind.BRIDGE, "lab")
OUR_TAP = LinkOwner(INSTALL, UID, "demo", LinkKind.TAP, "web")


def link(owner: LinkOwner, **more: object) -> Link:
    kind = "bridge" if owner.kind is LinkKind.BRIDGE else "tap"
    index = 10 if owner == OUR_BRIDGE else 11 if owner == OUR_TAP else 12
    found = Link(name=owner.interface, index=index, kind=kind, alias=owner.alias)
    return replace(found, **more)  # type: ignore[arg-type]


def world(
    *links: Link, addresses: dict[int, Interface] | None = None, routes: dict[int, Network] | None = None, taps: int = 0
) -> World:
    found = {link.name: link for link in links}
    return World(found, tuple((addresses or {}).items()), tuple((routes or {}).items()), taps)


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
address6_ = IPv6Interface("fd00:1:2:3::1/64")
ADDRESSED = {"addresses": {10: address}}
HALF = Link(name=OUR_BRIDGE.interface, index=10, kind="bridge", group=BRIDGE_GROUP)
OTHER_UID = replace(OUR_BRIDGE, uid=1001)
ETH0 = Link(name="eth0", index=2)
TUN0 = Link(name="tun0", index=3)
BOTH = World(
    {OUR_BRIDGE.interface: link(OUR_BRIDGE)}, ((10, address), (10, address6_), (10, IPv6Interface("fe80::1/64")))
)
WORLDS: dict[str, tuple[Request, World, Code | None]] = {
    "an empty host": (BRIDGE, world(), None),
    "a tap without its bridge": (TAP, world(), Code.NO_BRIDGE),
    "a tap on a half-made bridge": (TAP, world(HALF), Code.NO_BRIDGE),
    "a tap on its bridge": (TAP, world(link(OUR_BRIDGE)), None),
    "the same bridge again": (BRIDGE, world(link(OUR_BRIDGE), addresses={10: address}), None),
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
    "a foreign port": (DROP_BRIDGE, world(link(OUR_BRIDGE), Link(name="veth0", master=10)), Code.FOREIGN_PORT),
    "another uid's tap as a port": (
        DROP_BRIDGE, world(link(OUR_BRIDGE), link(replace(OUR_TAP, uid=1001), master=10)), Code.FOREIGN_PORT,
    ),
    "a port of ours": (DROP_BRIDGE, world(link(OUR_BRIDGE), link(OUR_TAP, master=10)), None),
    "an address that overlaps": (
        BRIDGE, world(ETH0, addresses={2: IPv4Interface("172.30.7.99/32")}), Code.CIDR_TAKEN,
    ),
    "an IPv6 address that overlaps": (
        replace(BRIDGE, cidr6="fd00:1:2:3::/64"), world(ETH0, addresses={2: IPv6Interface("fd00:1:2:3::9/48")}), Code.CIDR_TAKEN,
    ),
    "a route that overlaps": (BRIDGE, world(TUN0, routes={3: IPv4Network("172.16.0.0/12")}), Code.CIDR_TAKEN),
    "a blackhole that overlaps": (BRIDGE, world(routes={0: IPv4Network("172.30.7.8/29")}), Code.CIDR_TAKEN),
    "our own routes": (BRIDGE, world(link(OUR_BRIDGE), routes={10: IPv4Network("172.30.7.0/24")}), None),
    "a VPN over what we have": (
        BRIDGE, world(link(OUR_BRIDGE), TUN0, addresses={10: address}, routes={3: IPv4Network("172.16.0.0/12")}), None,
    ),
    "rules without a bridge": (RULES, world(), Code.NO_BRIDGE),
    "rules of a bridge with another address": (RULES, world(link(OUR_BRIDGE), addresses={10: address}), Code.NO_BRIDGE),
    "rules": (RULES, BOTH, None),
    "rules on another's bridge": (RULES, world(link(OUR_BRIDGE, alias=OTHER_UID.alias)), Code.FOREIGN_LINK),
    "sockets without a bridge": (DNS, world(), Code.NO_BRIDGE),
    "sockets": (DNS, BOTH, None),
    "addresses of a name without a bridge": (ALLOW, world(), Code.NO_BRIDGE),
    "names without a bridge": (replace(DNS, op=Op.ROUTE_NAMES), world(), Code.NO_BRIDGE),
    "a look": (SHOW, world(), None),
}  # fmt: skip


@pytest.mark.parametrize("case", WORLDS)
def test_worlds(case: str) -> None:
    request, existing, code = WORLDS[case]
    assert code_of(policy.permit, UID, request, existing) is code


def test_one_bridge_more_than_the_quota() -> None:
    others = [link(LinkOwner(INSTALL, UID, "other", LinkKind.BRIDGE, f"n{i}")) for i in range(policy.MAX_BRIDGES)]
    assert code_of(policy.permit, UID, BRIDGE, world(*others[1:])) is None
    assert code_of(policy.permit, UID, BRIDGE, world(*others)) is Code.QUOTA
    # What exists already is not one more.
    assert code_of(policy.permit, UID, BRIDGE, world(link(OUR_BRIDGE), *others)) is None
    assert code_of(policy.permit, 1001, BRIDGE, world(*others)) is None


def test_one_tap_more_than_the_quota() -> None:
    bridge = link(OUR_BRIDGE)
    assert code_of(policy.permit, UID, TAP, world(bridge, taps=policy.MAX_TAPS - 1)) is None
    assert code_of(policy.permit, UID, TAP, world(bridge, taps=policy.MAX_TAPS)) is Code.QUOTA
    assert code_of(policy.permit, UID, TAP, world(bridge, link(OUR_TAP), taps=policy.MAX_TAPS)) is None


def test_corpses_are_only_what_nobody_uses() -> None:
    half = [replace(HALF, index=i + 20, name=f"bgb-000000000{i}") for i in range(4)]
    port = Link(name="veth0", master=21)
    existing = world(half[0], half[1], replace(half[2], up=True), replace(half[3], group=0), port, link(OUR_BRIDGE))
    assert policy.corpses(existing) == [half[0]]


WEB = ("web", "172.30.7.10")
REFUSED: dict[str, tuple[Request, Code]] = {
    "a digest of another length": (replace(RULES, digest="0" * 15), Code.BAD_FIELD),
    "a digest with text": (replace(RULES, digest='0" accept #abcdef'[:16]), Code.BAD_FIELD),
    "an IPv6 network of another size": (replace(RULES, cidr6="fd00::/48"), Code.BAD_CIDR),
    "a public IPv6 network": (replace(RULES, cidr6="2001:db8::/64"), Code.BAD_CIDR),
    "a link-local IPv6 network": (replace(RULES, cidr6="fe80::/64"), Code.BAD_CIDR),
    "an IPv6 network with host bits": (replace(RULES, cidr6="fd00::1/64"), Code.BAD_CIDR),
    "an IPv6 network spelled long": (replace(RULES, cidr6="fd00:0::/64"), Code.BAD_CIDR),
    "an IPv4-mapped network": (replace(RULES, cidr6="::ffff:10.0.0.0/120"), Code.BAD_CIDR),
    "an IPv6 network with a zone": (replace(RULES, cidr6="fd00::%eth0/64"), Code.BAD_CIDR),
    "a bridge with a wrong IPv6 network": (replace(BRIDGE, cidr6="fd00::/63"), Code.BAD_CIDR),
    "a VM twice": (replace(RULES, vms=(WEB, ("web", "172.30.7.11"))), Code.BAD_NAME),
    "a VM without a name": (replace(RULES, vms=(("", "172.30.7.11"),)), Code.BAD_NAME),
    "nft text as a VM": (replace(RULES, vms=(('web" } accept', "172.30.7.11"),)), Code.BAD_NAME),
    "two VMs at one address": (replace(RULES, vms=(WEB, ("db", "172.30.7.10"))), Code.BAD_ADDRESS),
    "a VM at the gateway": (replace(RULES, vms=(("web", "172.30.7.1"),)), Code.BAD_ADDRESS),
    "a VM at the network": (replace(RULES, vms=(("web", "172.30.7.0"),)), Code.BAD_ADDRESS),
    "a VM at broadcast": (replace(RULES, vms=(("web", "172.30.7.255"),)), Code.BAD_ADDRESS),
    "a VM elsewhere": (replace(RULES, vms=(("web", "172.30.8.10"),)), Code.BAD_ADDRESS),
    "a VM at an octal address": (replace(RULES, vms=(("web", "172.30.7.010"),)), Code.BAD_ADDRESS),
    "a VM at an IPv6 address": (replace(RULES, vms=(("web", "fd00:1:2:3::a"),)), Code.BAD_ADDRESS),
    "a VM at a mapped address": (replace(RULES, vms=(("web", "::ffff:172.30.7.10"),)), Code.BAD_ADDRESS),
    "nft text as an address": (replace(RULES, vms=(("web", "172.30.7.10 } drop"),)), Code.BAD_ADDRESS),
    "too many VMs": (
        replace(RULES, cidr="10.0.0.0/16", vms=tuple((f"v{n}", f"10.0.{n // 200 + 1}.{n % 200}") for n in range(1025))),
        Code.QUOTA,
    ),
    "egress with host bits": (replace(RULES, egress=(("10.0.0.1/8", "any", 0, 0),)), Code.BAD_FIELD),
    "egress without a length": (replace(RULES, egress=(("10.0.0.1", "any", 0, 0),)), Code.BAD_FIELD),
    "egress to nowhere": (replace(RULES, egress=(("", "any", 0, 0),)), Code.BAD_FIELD),
    "egress in capitals": (replace(RULES, egress=(("Debian.org", "any", 0, 0),)), Code.BAD_FIELD),
    "egress to a star inside": (replace(RULES, egress=(("a.*.org", "any", 0, 0),)), Code.BAD_FIELD),
    "egress to a star alone": (replace(RULES, egress=(("*", "any", 0, 0),)), Code.BAD_FIELD),
    "egress with nft text": (replace(RULES, egress=(("a.org accept", "any", 0, 0),)), Code.BAD_FIELD),
    "egress to a name too long": (replace(RULES, egress=(("a." * 127, "any", 0, 0),)), Code.BAD_FIELD),
    "egress of another protocol": (replace(RULES, egress=(("a.org", "icmp", 0, 0),)), Code.BAD_FIELD),
    "egress of any protocol with ports": (replace(RULES, egress=(("a.org", "any", 80, 80),)), Code.BAD_FIELD),
    "egress of ports backwards": (replace(RULES, egress=(("a.org", "tcp", 81, 80),)), Code.BAD_FIELD),
    "egress from port 0": (replace(RULES, egress=(("a.org", "tcp", 0, 80),)), Code.BAD_FIELD),
    "egress beyond the ports": (replace(RULES, egress=(("a.org", "tcp", 1, 65536),)), Code.BAD_FIELD),
    "too much egress": (replace(RULES, egress=(("a.org", "any", 0, 0),) * 257), Code.QUOTA),
    "a privileged port": (replace(RULES, ports=(("", 1023, "tcp", "web", 80),)), Code.BAD_PORT),
    "port 0": (replace(RULES, ports=(("", 0, "tcp", "web", 80),)), Code.BAD_PORT),
    "port 65536": (replace(RULES, ports=(("", 65536, "tcp", "web", 80),)), Code.BAD_PORT),
    "guest port 0": (replace(RULES, ports=(("", 8080, "tcp", "web", 0),)), Code.BAD_PORT),
    "a negative port": (replace(RULES, ports=(("", 8080, "tcp", "web", -1),)), Code.BAD_PORT),
    "a port of another protocol": (replace(RULES, ports=(("", 8080, "sctp", "web", 80),)), Code.BAD_PORT),
    "a port of no VM": (replace(RULES, ports=(("", 8080, "tcp", "nobody", 80),)), Code.BAD_PORT),
    "a port twice": (replace(RULES, ports=(("", 8080, "tcp", "web", 80), ("", 8080, "tcp", "db", 80))), Code.BAD_PORT),
    "a port everywhere and somewhere": (
        replace(RULES, ports=(("", 8080, "tcp", "web", 80), ("127.0.0.1", 8080, "tcp", "db", 80))), Code.BAD_PORT,
    ),
    "a port somewhere and everywhere": (
        replace(RULES, ports=(("127.0.0.1", 8080, "tcp", "db", 80), ("", 8080, "tcp", "web", 80))), Code.BAD_PORT,
    ),
    "a port on ::1": (replace(RULES, ports=(("::1", 8080, "tcp", "web", 80),)), Code.BAD_ADDRESS),
    "a port on multicast": (replace(RULES, ports=(("224.0.0.1", 8080, "tcp", "web", 80),)), Code.BAD_ADDRESS),
    "a port on every address, spelled out": (replace(RULES, ports=(("0.0.0.0", 8080, "tcp", "web", 80),)), Code.BAD_ADDRESS),
    "a port on a name": (replace(RULES, ports=(("localhost", 8080, "tcp", "web", 80),)), Code.BAD_ADDRESS),
    "a port on a link-local address": (replace(RULES, ports=(("fe80::1", 8080, "tcp", "web", 80),)), Code.BAD_ADDRESS),
    "a port on IPv6 without any": (
        replace(RULES, cidr6="", ports=(("2001:db8::1", 8080, "tcp", "web", 80),)), Code.BAD_PORT,
    ),
    "addresses of no name": (replace(ALLOW, name=""), Code.BAD_NAME),
    "addresses of a set": (replace(ALLOW, name="taps { accept }"), Code.BAD_NAME),
    "an address that is none": (replace(ALLOW, addresses=("192.0.2.256",)), Code.BAD_ADDRESS),
    "a network as an address": (replace(ALLOW, addresses=("192.0.2.0/24",)), Code.BAD_ADDRESS),
    "the host as an address": (replace(ALLOW, addresses=("127.0.0.1",)), Code.BAD_ADDRESS),
    "the host as an IPv6 address": (replace(ALLOW, addresses=("::1",)), Code.BAD_ADDRESS),
    "a mapped address": (replace(ALLOW, addresses=("::ffff:192.0.2.1",)), Code.BAD_ADDRESS),
    "multicast as an address": (replace(ALLOW, addresses=("224.0.0.1",)), Code.BAD_ADDRESS),
    "an address spelled long": (replace(ALLOW, addresses=("2001:0db8::1",)), Code.BAD_ADDRESS),
    "too many addresses": (replace(ALLOW, addresses=("192.0.2.1",) * 65), Code.QUOTA),
    "no time": (replace(ALLOW, seconds=0), Code.BAD_FIELD),
    "more than a day": (replace(ALLOW, seconds=86401), Code.BAD_FIELD),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_rules_that_are_refused(case: str) -> None:
    request, code = REFUSED[case]
    assert code_of(policy.check, UID, Envelope("a1", "", request)) is code


ACCEPTED: list[Request] = [
    BRIDGE,
    replace(BRIDGE, cidr="10.0.0.0/16"),
    replace(BRIDGE, cidr="192.168.255.248/29"),
    replace(BRIDGE, cidr6="fd12:3456:789a:1::/64"),
    replace(BRIDGE, mtu=9000),
    replace(BRIDGE, network="a"),
    replace(BRIDGE, environment="a" * 31),
    DROP_BRIDGE,
    TAP,
    replace(TAP, vm="web-1"),
    replace(TAP, mtu=1280),
    DROP_TAP,
    RULES,
    replace(RULES, cidr6=""),
    replace(RULES, vms=()),
    replace(RULES, nat=False, isolated=True, dns=False),
    replace(RULES, restricted=True),
    replace(RULES, restricted=True, egress=(("10.1.0.0/16", "any", 0, 0), ("9.9.9.9/32", "udp", 53, 53))),
    replace(RULES, restricted=True, egress=(("deb.debian.org", "tcp", 80, 80), ("*.example.org", "tcp", 0, 0))),
    replace(RULES, restricted=True, egress=(("0.0.0.0/0", "tcp", 1, 65535), ("2001:db8::/32", "any", 0, 0))),
    replace(RULES, ports=(("", 8080, "tcp", "web", 80),)),
    replace(RULES, ports=(("127.0.0.1", 8080, "tcp", "web", 80), ("192.0.2.1", 8080, "tcp", "db", 80))),
    replace(RULES, ports=(("", 5353, "udp", "web", 53), ("", 5353, "tcp", "web", 53))),
    replace(RULES, ports=(("2001:db8::1", 8080, "tcp", "web", 80), ("", 65535, "udp", "db", 65535))),
    SHOW,
    WATCH,
    replace(WATCH, generation=0),
    ALLOW,
    replace(ALLOW, name="*.example.org", addresses=("2001:db8::1", "192.0.2.1"), seconds=86400),
    replace(ALLOW, name="_service.example.org"),
    DNS,
    replace(DNS, op=Op.ROUTE_NAMES),
]


@pytest.mark.parametrize("number", range(len(ACCEPTED)))
def test_requests_that_are_accepted(number: int) -> None:
    assert len(ACCEPTED) >= 30
    assert {request.op for request in ACCEPTED} == set(Op)
    policy.check(UID, Envelope("a1", "apply/7", ACCEPTED[number]))


def test_root_may_publish_privileged_ports() -> None:
    policy.check(0, Envelope("a1", "", replace(RULES, ports=(("", 80, "tcp", "web", 80),))))
