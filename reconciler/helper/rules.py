"""Loads, shows and opens the rules of networks, through nft(8). All of it under the helper's lock."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from reconciler.helper import forwarding, nft
from reconciler.helper.links import World
from reconciler.helper.names import LinkOwner, managed, owner_of
from reconciler.helper.netlink import Rules
from reconciler.helper.protocol import Code, Done, Refusal, Request
from reconciler.helper.run import Runner

_IP_FREEBIND = 15
_EVERYWHERE = ["0.0.0.0", "::"]  # noqa: S104 - tried, never served on


def ensure(run: Runner, owner: LinkOwner, request: Request, world: World) -> bool:
    """Makes a network's rules, and the forwarding that they need, be as asked; whether anything had to change."""
    tables = _survey(run)
    name = owner.interface
    _refuse_foreign(tables, owner)
    # Those of a bridge that is gone serve nobody, and would drop what a network of the same addresses is sent.
    orphans = [key for key, text in tables.items() if key[1] not in world.links and owner_of(key[1], nft.comment(text))]
    tables = _without(run, tables, orphans)
    changed = nft.stamp(tables, name) != (request.digest, True)
    if changed:
        _refuse_taken(tables, name, request)
        run("nft", "-f", "-", text=nft.ruleset(owner, request, tables.get(("inet", name), "")))
        tables |= _listed(run, "table", "inet", name) | _listed(run, "table", "bridge", name)
        # Last: tables without a stamp, as a killed helper leaves them, count as wrong.
        mark = f"{request.digest} {nft.fingerprint(tables, name)}"
        run("nft", "-f", "-", text=f'add chain inet {name} {nft.STAMP} {{ comment "{mark}"; }}')
    # Before the bridge's own sysctls, by which one tells whether there ought to be a record.
    changed |= forwarding.settle(run, tables, world.hosts())
    for sysctl in forwarding.bridge_sysctls(name, tables):
        changed |= forwarding.write(*sysctl)
    return changed


def delete(run: Runner, owner: LinkOwner, world: World) -> bool:
    """Makes a network have no rules, and puts back what forwarding none needs any more."""
    tables = _survey(run)
    _refuse_foreign(tables, owner)
    found = [key for key in tables if key[1] == owner.interface]
    left = _without(run, tables, found)
    return forwarding.settle(run, left, world.hosts()) or bool(found)


def show(run: Runner, uid: int, install: str, world: World) -> Done:
    """What rules a uid's installation has, and which foreign chains drop what is forwarded."""
    with Rules() as kernel:
        generation = kernel.generation()
    tables = _survey(run)
    settled = not forwarding.settle(run, tables, world.hosts(), dry=True)
    rows: list[tuple[str, str, str, bool]] = []
    blockers: list[str] = []
    for (family, name), text in tables.items():
        owner = owner_of(name, nft.comment(text))
        if owner is None and name != forwarding.TABLE:
            blockers += nft.blockers(family, name, text)
        elif owner and family == "inet" and (owner.uid, owner.install) == (uid, install):
            digest, intact = nft.stamp(tables, name)
            intact = (
                intact and settled and all(forwarding.read(k) == v for k, v in forwarding.bridge_sysctls(name, tables))
            )
            rows.append((owner.environment, owner.name, digest, intact))
    return Done("", False, generation=generation, rules=tuple(rows), blockers=tuple(blockers))


def allow(run: Runner, owner: LinkOwner, request: Request) -> bool:
    """Opens the way to the addresses of an egress name."""
    tables = _listed(run, "table", "inet", owner.interface)
    _refuse_foreign(tables, owner)
    wanted = nft.names_set(request.name, 4)
    if f"\tset {wanted} {{" not in tables.get(("inet", owner.interface), ""):
        raise Refusal(Code.NO_RULES, f"the rules of {owner} know no name {request.name}")
    run("nft", "-f", "-", text=nft.allowing(owner.interface, request.name, request.addresses, request.seconds))
    return True


def _without(
    run: Runner, tables: dict[tuple[str, str], str], gone: list[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Deletes tables; those that are left."""
    if gone:
        run("nft", "-f", "-", text="\n".join(f"delete table {family} {name}" for family, name in gone))
    return {key: text for key, text in tables.items() if key not in gone}


def _survey(run: Runner) -> dict[tuple[str, str], str]:
    """All tables; those of others without what their sets contain, which may be a whole country's addresses."""
    found = nft.read_tables(run("nft", "-s", "-t", "list", "ruleset"))
    for family, name in tuple(found):
        if family == "inet" and (managed(name) or name == forwarding.TABLE):
            found |= _listed(run, "table", family, name)
    return found | _listed(run, "ruleset", "bridge")


def _listed(run: Runner, *what: str) -> dict[tuple[str, str], str]:
    # One at a time: asked for two tables at once, nft 1.0.6 finds but one of them.
    return nft.read_tables(run("nft", "list", *what))


def _refuse_foreign(tables: nft.Tables, owner: LinkOwner) -> None:
    for (family, name), text in tables.items():
        if name == owner.interface and nft.comment(text) != owner.alias:
            raise Refusal(Code.FOREIGN_TABLE, f"nft table {family} {name} is not the one of {owner}")


def _refuse_taken(tables: nft.Tables, mine: str, request: Request) -> None:
    """A port that another network publishes, or that a program of the host listens on, is not to be taken from it."""
    others = {
        taken
        for (family, name), text in tables.items()
        if family == "inet" and managed(name) and name != mine
        for taken in nft.published(text)
    }
    for host, port, protocol, *_ in request.ports:
        where = f"port {port}/{protocol} of {host or 'this host'}"
        if any(taken[::2] == (protocol, port) and (not host or taken[1] in ("", host)) for taken in others):
            raise Refusal(Code.PORT_TAKEN, f"{where} is published by another network")
        for address in [host] if host else _EVERYWHERE[: 2 if request.cidr6 else 1]:
            if _listening(address, port, protocol):
                raise Refusal(Code.PORT_TAKEN, f"{where} is in use: a program of the host listens there")


def _listening(address: str, port: int, protocol: str) -> bool:
    """Whether the kernel would not give the port away; it knows best."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the remains of past connections do not count
        probe.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # an address that the host has but at times
        try:
            probe.bind((address, port))
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                return True
            raise
    return False
