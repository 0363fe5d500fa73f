"""Rules as text, and what listings tell. What the rules do is proved with packets in tests/host/test_rules*.py."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from reconciler.helper import nft
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Op, Request

OWNER = LinkOwner("0123456789ab", 1000, "demo", LinkKind.BRIDGE, "lab")
B = OWNER.interface
PLAIN = Request(
    op=Op.ENSURE_RULES,
    install=OWNER.install,
    environment="demo",
    network="lab",
    digest="0" * 16,
    cidr="172.30.7.0/24",
    vms=(("web", "172.30.7.10"),),
)


def rules(**more: object) -> str:
    return nft.ruleset(OWNER, replace(PLAIN, **more))  # type: ignore[arg-type]


def chain(text: str, name: str) -> list[str]:
    found = re.search(rf"^chain {name} \{{.*\n((?:.*\n)*?)\}}", text, re.M)
    return found[1].splitlines() if found else []


def test_both_tables_are_replaced_in_one_transaction() -> None:
    text = rules()
    for family in ("inet", "bridge"):
        assert f"add table {family} {B}\ndelete table {family} {B}\ntable {family} {B} {{\ncomment" in text
    assert text.count(OWNER.alias) == 2


def test_rules_do_not_grow_with_the_vms() -> None:
    few = rules(vms=(("web", "172.30.7.10"),), ports=(("", 8080, "tcp", "web", 80),))
    many = rules(
        vms=tuple((f"web-{n}", f"172.30.7.{n}") for n in range(2, 250)),
        ports=tuple(("", 8000 + n, "tcp", f"web-{n}", 80) for n in range(2, 250)),
    )
    assert len(few.splitlines()) == len(many.splitlines())


@pytest.mark.parametrize(("nat", "ports"), [(False, ()), (True, ()), (False, (("", 8080, "tcp", "web", 80),))])
def test_addresses_are_rewritten_only_where_it_is_wanted(
    nat: bool, ports: tuple[tuple[str, int, str, str, int]]
) -> None:
    text = rules(nat=nat, ports=ports)
    assert ("masquerade" in text) == bool(nat or ports)
    assert ("dnat" in text.replace("ct status dnat", "")) == bool(ports)
    assert (chain(text, "forward")[-1] == "reject with icmpx admin-prohibited") == (not nat)


def test_nothing_of_ipv6_without_a_network_of_it() -> None:
    assert "fd00" not in rules(nat=True, ports=(("", 8080, "tcp", "web", 80),))
    assert f'oifname != "{B}" ip6 saddr fd00::/64 masquerade' in rules(nat=True, cidr6="fd00::/64")


EGRESS = {
    ("10.1.0.0/16", "any", 0, 0): ["ip daddr 10.1.0.0/16 accept"],
    ("10.1.0.0/16", "tcp", 0, 0): ["ip daddr 10.1.0.0/16 meta l4proto tcp accept"],
    ("9.9.9.9/32", "udp", 53, 53): ["ip daddr 9.9.9.9/32 udp dport 53-53 accept"],
    ("2001:db8::/32", "tcp", 80, 443): ["ip6 daddr 2001:db8::/32 tcp dport 80-443 accept"],
    ("a.org", "tcp", 80, 80): [
        f"ip daddr @{nft.names_set('a.org', 4)} tcp dport 80-80 accept",
        f"ip6 daddr @{nft.names_set('a.org', 6)} tcp dport 80-80 accept",
    ],
}


@pytest.mark.parametrize("row", EGRESS)
def test_egress(row: tuple[str, str, int, int]) -> None:
    restricted = chain(rules(nat=True, restricted=True, egress=(row,)), "forward")
    assert restricted[-len(EGRESS[row]) - 1 :] == [*EGRESS[row], "reject with icmpx admin-prohibited"]


def test_addresses_of_names_outlive_a_change_of_the_rules() -> None:
    name = nft.names_set("a.org", 4)
    before = f"\tset {name} {{\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t\telements = {{ 192.0.2.1 timeout 1m expires 9s,\n\t\t\t     192.0.2.2 timeout 2m expires 1m3s }}\n\t}}\n"
    text = nft.ruleset(OWNER, replace(PLAIN, egress=(("a.org", "any", 0, 0),)), before)
    assert "{ 192.0.2.1 timeout 1m expires 9s, 192.0.2.2 timeout 2m expires 1m3s }" in text
    assert "192.0.2.1" not in nft.ruleset(OWNER, replace(PLAIN, egress=(("b.org", "any", 0, 0),)), before)


LISTING = f"""table inet {B} {{
	comment "{OWNER.alias}"
	set n4-0123456789 {{
		type ipv4_addr
		flags timeout
	}}

	chain forward {{
		accept
	}}

	chain stamp {{
		comment "0123456789abcdef FINGERPRINT"
	}}
}}
table bridge {B} {{
	comment "{OWNER.alias}"
}}
"""


def stamped(listing: str) -> str:
    blank = nft.read_tables(listing.replace("FINGERPRINT", "0" * 16))
    return listing.replace("FINGERPRINT", nft.fingerprint(blank, B))


def test_a_stamp_tells_what_was_loaded_and_whether_it_is_still_so() -> None:
    listing = stamped(LISTING)
    tables = nft.read_tables(listing)
    assert nft.comment(tables["inet", B]) == OWNER.alias
    assert nft.stamp(tables, B) == ("0123456789abcdef", True)
    changed = {
        "a rule": listing.replace("accept", "drop"),
        "the other table": listing.replace("table bridge", "table arp"),
        "its content": listing.replace(f"table bridge {B} {{\n", f"table bridge {B} {{\n\tchain c {{\n\t}}\n"),
    }
    for what, text in changed.items():
        assert nft.stamp(nft.read_tables(text), B) == ("0123456789abcdef", False), what
    names = listing.replace(
        "\t\tflags timeout\n", "\t\tflags timeout\n\t\telements = { 192.0.2.1 timeout 1m expires 9s }\n"
    )
    assert nft.stamp(nft.read_tables(names), B) == ("0123456789abcdef", True)
    assert nft.stamp({}, B) == ("", False)
    assert nft.stamp(nft.read_tables(LISTING.replace("stamp", "other")), B) == ("", False)


def test_publications_are_read_from_a_listing() -> None:
    text = "elements = { tcp . 8080 : 172.30.7.10 . 80,\n udp . 127.0.0.1 . 53 : 172.30.7.10 . 53, tcp . 2001:db8::1 . 9 : fd00::a . 80 }"
    assert nft.published(text) == {("tcp", "", 8080), ("udp", "127.0.0.1", 53), ("tcp", "2001:db8::1", 9)}


BLOCKING = {
    "\tchain F {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n": ["ip t F"],
    "\tchain F {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tip saddr 1.2.3.4 drop\n\t}\n": [],
    "\tchain F {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\t\taccept\n\t\tcounter drop\n\t}\n": ["ip t F"],
    "\tchain F {\n\t\ttype filter hook forward priority 10; policy accept;\n\t\treject with icmp host-unreachable\n\t}\n": ["ip t F"],
    "\tchain F {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n": [],
    '\tchain F {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tiifname "bgb-*" accept\n\t}\n': [],
}  # fmt: skip


@pytest.mark.parametrize("text", BLOCKING)
def test_blockers(text: str) -> None:
    assert list(nft.blockers("ip", "t", text)) == BLOCKING[text]
