"""The rules of one network as the text of one nft transaction, and what a listing of nft's tells. Pure.

Each network has two tables named like its bridge, with the owner's alias as comment. The bridge one holds every port
to its VM's MAC and addresses; the inet one has the rest. What grows with the VMs is in sets, never in rules.
The text is made of checked fields and derived names alone. nft(8) of 1.0.6 and newer takes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from reconciler.helper.names import LinkKind, LinkOwner, address6
from reconciler.helper.protocol import Request

Tables = Mapping[tuple[str, str], str]
"""Listed tables: (family, name) → what is between the braces."""

Networks = Sequence[tuple[str, IPv4Address | IPv6Address, IPv4Network | IPv6Network]]
"""Of each family: what nft calls it, the gateway, the CIDR."""

STAMP = "stamp"
_TABLE = re.compile(r"^table (\w+) (\S+) \{.*?\n(.*?)^\}", re.M | re.S)
_NAMES = re.compile(r"\tset (n[46]-[0-9a-f]{10}) \{\n(.*?)\n\t\}\n", re.S)
_STAMP = re.compile(rf'\tchain {STAMP} \{{\n\t\tcomment "([0-9a-f]+) ([0-9a-f]+)"\n\t\}}\n')
_TIMED = re.compile(r"([0-9a-f.:]+) timeout (\w+) expires (\w+)")
_PUBLISHED = re.compile(r"(tcp|udp) \. (?:([0-9a-f.:]+) \. )?(\d+) : ")
_FORWARD = re.compile(
    r"\tchain (\S+) \{\n\t\ttype filter hook forward .*policy (\w+);\n(?:\t\t(?:.*\n\t\t)*(.*)\n)?\t\}"
)
_ENDING = re.compile(r"(counter )?(drop|reject.*)")


def read_tables(listing: str) -> dict[tuple[str, str], str]:
    """The tables in the output of `nft list`."""
    return {(match[1], match[2]): match[3] for match in _TABLE.finditer(listing)}


def comment(text: str) -> str:
    """A table's comment, "" if it has none."""
    match = re.match(r'\tcomment "([^"]*)"', text)
    return match[1] if match else ""


def stamp(tables: Tables, name: str) -> tuple[str, bool]:
    """The digest that a network's tables were loaded with, and whether they are still what was loaded."""
    match = _STAMP.search(tables.get(("inet", name), ""))
    return (match[1], match[2] == fingerprint(tables, name)) if match else ("", False)


def fingerprint(tables: Tables, name: str) -> str:
    """16 hex digits that tell whether a network's tables are the same, but for addresses that names led to."""
    text = "".join(tables.get((family, name), "") for family in ("inet", "bridge"))
    return _digest(" ".join(_NAMES.sub("", _STAMP.sub("", text)).split()))[:16]


def published(text: str) -> set[tuple[str, str, int]]:
    """What an inet table publishes: protocol, address of the host or "", port."""
    return {(match[1], match[2] or "", int(match[3])) for match in _PUBLISHED.finditer(text)}


def blockers(family: str, name: str, text: str) -> Iterator[str]:
    """A foreign table's forward chains that end in dropping, unless the table speaks of our bridges."""
    for match in _FORWARD.finditer(text):
        if (match[2] == "drop" or _ENDING.fullmatch(match[3] or "")) and '"bgb-' not in text:
            yield f"{family} {name} {match[1]}"


def names_set(name: str, version: int) -> str:
    """The set of the addresses that an egress name has led to."""
    return f"n{version}-{_digest(name)[:10]}"


def allowing(table: str, name: str, addresses: Iterable[str], seconds: int) -> str:
    """Adds addresses to a name's sets. Deleted in between, since adding renews no timeout."""
    lines = []
    for address in addresses:
        element = f"element inet {table} {names_set(name, ip_address(address).version)} {{ {address}"
        lines += [f"add {element} }}", f"delete {element} }}", f"add {element} timeout {seconds}s }}"]
    return "\n".join(lines)


def is_name(to: str) -> bool:
    """Whether an egress destination is a DNS name, and not a CIDR."""
    return "/" not in to


def ruleset(owner: LinkOwner, request: Request, before: str = "") -> str:
    """One transaction that replaces a network's tables; addresses that names led to are kept from the inet table `before`."""
    cidr = IPv4Network(request.cidr)
    cidr6 = IPv6Network(request.cidr6) if request.cidr6 else None
    name = owner.interface
    networks: Networks = [("ip", cidr[1], cidr), *([("ip6", cidr6[1], cidr6)] if cidr6 else [])]
    inet = [*_names(request, before), *_filter(name, networks, request), *_nat(name, networks, request)]
    return "\n".join((*_table("inet", owner, inet), *_table("bridge", owner, _guard(owner, request))))


def _table(family: str, owner: LinkOwner, content: Iterable[str]) -> Iterator[str]:
    # Deleting what is absent is an error; adding what is there is none.
    yield f"add table {family} {owner.interface}"
    yield f"delete table {family} {owner.interface}"
    yield f'table {family} {owner.interface} {{\ncomment "{owner.alias}"'
    yield from content
    yield "}"


def _names(request: Request, before: str) -> Iterator[str]:
    kept = {match[1]: _TIMED.findall(match[2]) for match in _NAMES.finditer(before)}
    for to in sorted({to for to, *_ in request.egress if is_name(to)}):
        for version in (4, 6):
            name = names_set(to, version)
            elements = [f"{a} timeout {timeout} expires {expires}" for a, timeout, expires in kept.get(name, ())]
            yield _set("set", name, f"type ipv{version}_addr; flags timeout", elements)


def _filter(name: str, networks: Networks, request: Request) -> Iterator[str]:
    # The way to 127.0.0.0/8 that publishing opens (route_localnet) is the host's alone.
    yield _chain("raw", "filter hook prerouting priority -300", [f'iifname "{name}" ip daddr 127.0.0.0/8 drop'])
    inward = [f'iifname != {{ "lo", "{name}" }} {ip} daddr {gateway} drop' for ip, gateway, _ in networks]
    inward += [f'iifname != "{name}" accept', "ct state established,related accept"]
    if request.isolated:
        if request.dns:
            inward += [
                f"{ip} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept" for ip, gateway, _ in networks
            ]
        inward += ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", "drop"]
    yield _chain("input", "filter hook input priority 0", inward)
    verdict = "drop" if request.isolated else "accept"
    across = [
        f'iifname != "{name}" oifname != "{name}" accept',
        "ct state established,related accept",
        f'iifname "{name}" oifname "{name}" {verdict}',
        f'oifname "{name}" ct status dnat accept',
        f'oifname "{name}" drop',
        f"ct status dnat {verdict}",
    ]
    if request.restricted and request.nat:
        across += (rule for row in request.egress for rule in _egress(*row))
    if request.restricted or not request.nat:
        across.append("reject with icmpx admin-prohibited")
    yield _chain("forward", "filter hook forward priority 0", across)


def _egress(to: str, protocol: str, first: int, last: int) -> Iterator[str]:
    ports = "" if protocol == "any" else f" {protocol} dport {first}-{last}" if first else f" meta l4proto {protocol}"
    for ip, version in (("ip", 4), ("ip6", 6)):
        if is_name(to):
            yield f"{ip} daddr @{names_set(to, version)}{ports} accept"
        elif (":" in to) == (version == 6):
            yield f"{ip} daddr {to}{ports} accept"


def _nat(name: str, networks: Networks, request: Request) -> Iterator[str]:
    leaving: list[str] = []
    if request.ports:
        yield from _publications(name, networks, request)
        leaving += [f'oifname "{name}" ip saddr 127.0.0.0/8 masquerade']
        leaving += [f'oifname "{name}" {ip} saddr {cidr} ct status dnat masquerade' for ip, _, cidr in networks]
    if request.nat:
        leaving += [f'oifname != "{name}" {ip} saddr {cidr} masquerade' for ip, _, cidr in networks]
    if leaving:
        yield _chain("postrouting", "nat hook postrouting priority 100", leaving)


def _publications(name: str, networks: Networks, request: Request) -> Iterator[str]:
    addresses = dict(request.vms)
    jumps = ["fib daddr type local jump published"]
    rules = []
    for ip, _, cidr in networks:
        found: dict[str, list[str]] = {"any": [], "one": []}
        for host, port, protocol, vm, guest_port in request.ports:
            if not host or (":" in host) == (ip == "ip6"):
                guest = _address(cidr, request, addresses[vm])
                key = f"{protocol} . {host} . {port}" if host else f"{protocol} . {port}"
                found["one" if host else "any"].append(f"{key} : {guest} . {guest_port}")
        kind = "ipv4_addr" if ip == "ip" else "ipv6_addr"
        key = f"type inet_proto . {kind} . inet_service : {kind} . inet_service"
        yield _set("map", f"one-{ip}", key, found["one"])
        yield _set("map", f"any-{ip}", key.replace(f". {kind} ", "", 1), found["any"])
        # The kernel cannot lead ::1 elsewhere: whoever tries is refused at once, and turns to 127.0.0.1.
        head = f"{'' if ip == 'ip' else 'ip6 daddr != ::1 '}meta l4proto {{ tcp, udp }} dnat {ip} to meta l4proto"
        rules += [f"{head} . {ip} daddr . th dport map @one-{ip}", f"{head} . th dport map @any-{ip}"]
    dns = [f'iifname "{name}" {ip} daddr {g} meta l4proto {{ tcp, udp }} th dport 53 return' for ip, g, _ in networks]
    yield _chain("published", "", rules)
    yield _chain("prerouting", "nat hook prerouting priority -100", (dns if request.dns else []) + jumps)
    yield _chain("output", "nat hook output priority -100", jumps)


def _guard(owner: LinkOwner, request: Request) -> Iterator[str]:
    cidr6 = IPv6Network(request.cidr6) if request.cidr6 else None
    taps, macs, senders4, senders6, targets6 = [], [], [], [], []
    for vm, address in request.vms:
        tap = replace(owner, kind=LinkKind.TAP, name=vm)
        taps.append(f'"{tap.interface}"')
        macs.append(f"{taps[-1]} . {tap.guest_mac}")
        senders4.append(f"{macs[-1]} . {address}")
        if cidr6:
            own6 = _address(cidr6, request, address)
            senders6.append(f"{macs[-1]} . {own6}")
            targets6.append(f"{taps[-1]} . 0x{int(IPv6Address(own6)):032x}")
    yield _set("set", "taps", "type ifname", taps)
    yield _set("set", "macs", "type ifname . ether_addr", macs)
    yield _set("set", "senders4", "type ifname . ether_addr . ipv4_addr", senders4)
    yield _set("set", "senders6", "type ifname . ether_addr . ipv6_addr", senders6)
    # The target of a neighbour advertisement, for which older nft has no name.
    yield _set("set", "targets6", "typeof iifname . @th,64,128", targets6)
    senders = [
        "ether type != { arp, ip, ip6 } drop",
        "iifname . ether saddr . arp saddr ip @senders4 iifname . arp saddr ether . arp saddr ip @senders4 accept",
        "iifname . ether saddr . ip saddr @senders4 accept",
        "iifname . ether saddr != @macs drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        "icmpv6 type nd-neighbor-advert @th,64,10 != 0x3fa iifname . @th,64,128 != @targets6 drop",
        "ip6 saddr { ::, fe80::/10 } accept",
        "iifname . ether saddr . ip6 saddr @senders6 accept",
        "drop",
    ]
    yield _chain("senders", "", senders)
    # A tap of this network that the request does not list reaches nobody.
    ports = ["iifname @taps goto senders", f"meta iifgroup {owner.port_group} drop"]
    yield _chain("prerouting", "filter hook prerouting priority -300", ports)
    if request.isolated:
        yield _chain("forward", "filter hook forward priority 0", ["iifname @taps oifname @taps drop"])


def _address(cidr: IPv4Network | IPv6Network, request: Request, address: str) -> str:
    if isinstance(cidr, IPv6Network):
        return str(address6(IPv4Network(request.cidr), cidr, IPv4Address(address)))
    return address


def _set(kind: str, name: str, key: str, elements: list[str]) -> str:
    content = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"{kind} {name} {{ {key};{content} }}"


def _chain(name: str, hook: str, rules: list[str]) -> str:
    head = f"type {hook}; policy accept;" if hook else ""
    return "\n".join((f"chain {name} {{ {head}", *rules, "}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
