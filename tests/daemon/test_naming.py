"""Names follow the inventory, sockets follow the networks and their bridges."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Self

import dns.message
import dns.query
import pytest

from reconciler.daemon.gateways import Gateways
from reconciler.daemon.naming import PORT, Naming, loopback_port
from reconciler.daemon.zones import Zones, access_of
from reconciler.drivers.network.dns.zone import Kind
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Code, Refusal
from reconciler.lib.errors import BangerError
from reconciler.lib.log import Format, Log
from reconciler.lib.paths import Paths
from reconciler.model.vm import Egress, Network
from reconciler.store.db import Database
from reconciler.store.events import EventLog
from reconciler.store.inventory import Inventory, VmRow
from tests.api.conftest import eventually
from tests.fakes.clock import FakeClock
from tests.fakes.host import vm
from tests.fakes.nameserver import SECONDS, addresses, bound, rcode

# Networks inside 127/8: this host has every address of them, so gateways can be bound and guests are sockets.
LAB = Network(name="lab", cidr=IPv4Network("127.30.7.0/24"), mtu=1500, cidr6=IPv6Network("fd00:7::/64"))
GUEST = "127.30.7.10"


@dataclass
class Helper:
    """Binds at a port of its own choice, and counts what it was asked for. `broken` operations are refused."""

    networks: Mapping[tuple[str, str], Network]
    calls: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    ports: dict[str, int] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    open: int = 0

    def connect(self) -> Self:
        self.open += 1
        return self

    def close(self) -> None:
        self.open -= 1

    def dns_sockets(self, *, install: str, environment: str, network: str) -> tuple[socket.socket, socket.socket]:
        self._note("sockets", environment, network)
        gateway = str(self.networks[environment, network].gateway)
        udp, tcp = bound(gateway, self.ports.get(gateway, 0))
        self.ports[gateway] = udp.getsockname()[1]
        self.sockets += [udp, tcp]
        return udp, tcp

    def route_names(self, *, install: str, environment: str, network: str) -> bool:
        self._note("route", environment, network)
        return True

    def _note(self, what: str, environment: str, network: str) -> None:
        self.calls.append(f"{what} {environment}/{network}")
        if what in self.broken:
            raise Refusal(Code.FAILED, "the test wants it so")


@dataclass
class World:
    """An installation, its helper, and its links."""

    paths: Paths
    database: Database
    networks: dict[tuple[str, str], Network]
    helper: Helper
    links: dict[str, int]
    log: io.StringIO
    naming: Naming

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.database)

    def add(self, network: Network, environment: str = "demo", index: int | None = 7) -> None:
        """Records a network, and makes its bridge with that interface index."""
        self.networks[environment, network.name] = network
        self.inventory.put_network(environment, network)
        owner = LinkOwner(self.inventory.install, os.geteuid(), environment, LinkKind.BRIDGE, network.name)
        if index is None:
            self.links.pop(owner.interface, None)
        else:
            self.links[owner.interface] = index
        self.naming.poke()

    def put_vm(self, name: str, environment: str = "demo", address: str = GUEST, network: str = "lab") -> None:
        row = VmRow(
            environment=environment,
            name=name,
            id=f"{environment}-{name}",
            spec=vm(name, network=network),
            created={},
            booted={},
            address=IPv4Address(address),
            forwards={},
            created_at=1.0,
            started_at=None,
        )
        self.inventory.put_vm(row)

    def ask(self, name: str, kind: str = "A", gateway: str = "127.30.7.1", source: str = GUEST) -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        return dns.query.udp(query, gateway, SECONDS, self.helper.ports[gateway], source=source)

    def index_of(self, name: str) -> int:
        if name not in self.links:
            raise OSError("no interface with this name")
        return self.links[name]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
    database = Database(paths.database, create=True)
    networks: dict[tuple[str, str], Network] = {}
    helper, log = Helper(networks), io.StringIO()
    made = World(paths, database, networks, helper, {}, log, None)  # type: ignore[arg-type]  # in the next line
    made.naming = Naming(
        paths,
        Log(log, Format.HUMAN),
        port=0,
        connect=helper.connect,  # type: ignore[arg-type]  # it has the calls that matter here
        index_of=made.index_of,
    )
    yield made
    made.naming.stop()
    assert helper.open == 0
    assert {channel.fileno() for channel in helper.sockets} <= {-1}
    database.close()


def test_the_records_are_the_inventory(world: World) -> None:
    world.add(LAB)
    world.naming.start()
    eventually(lambda: world.helper.calls == ["sockets demo/lab", "route demo/lab"])
    eventually(lambda: "answering" in world.log.getvalue())
    assert rcode(world.ask("web.demo.vm")) == "NXDOMAIN"
    # From here on nobody is told of anything: what is committed is what is answered.
    world.put_vm("web")
    assert addresses(world.ask("web.demo.vm")) == [GUEST]
    assert addresses(world.ask("web.vm", "AAAA")) == ["fd00:7::a"]
    assert addresses(world.ask("10.7.30.127.in-addr.arpa", "PTR")) == ["web.demo.vm."]
    world.put_vm("web", address="127.30.7.11")
    assert addresses(world.ask("web.demo.vm")) == ["127.30.7.11"]
    world.put_vm("web", environment="prod", address="127.30.8.10", network="user")
    assert rcode(world.ask("web.vm")) == "NXDOMAIN"
    assert addresses(world.ask("web.prod.vm")) == ["127.30.8.10"]
    world.inventory.drop_vm("prod", "web")
    assert addresses(world.ask("web.vm")) == ["127.30.7.11"]


def test_a_network_without_dns_has_no_sockets(world: World) -> None:
    other = replace(LAB, name="other", cidr=IPv4Network("127.30.9.0/24"))
    world.add(replace(LAB, dns=False), index=8)
    world.add(other)
    world.naming.start()
    eventually(lambda: "route demo/other" in world.helper.calls)
    assert "sockets demo/lab" not in world.helper.calls
    world.add(replace(other, dns=False))
    eventually(lambda: world.helper.sockets[0].fileno() == -1)


def test_sockets_come_with_the_bridge_and_go_with_the_network(world: World) -> None:
    world.add(LAB, index=None)
    world.naming.start()
    world.add(replace(LAB, name="other", cidr=IPv4Network("127.30.9.0/24")))
    eventually(lambda: "route demo/other" in world.helper.calls)
    assert "sockets demo/lab" not in world.helper.calls
    world.add(LAB)
    eventually(lambda: "route demo/lab" in world.helper.calls)
    assert rcode(world.ask("web.demo.vm")) == "NXDOMAIN"
    world.inventory.drop_network("demo", "lab")
    world.naming.poke()
    eventually(lambda: [channel.fileno() for channel in world.helper.sockets[2:]] == [-1, -1])
    assert [channel.fileno() for channel in world.helper.sockets[:2]] != [-1, -1]


def test_a_bridge_that_was_made_again_gets_new_sockets_and_its_route(world: World) -> None:
    world.add(LAB, index=7)
    world.naming.start()
    eventually(lambda: world.helper.calls == ["sockets demo/lab", "route demo/lab"])
    world.add(LAB, index=8)
    eventually(lambda: world.helper.calls == ["sockets demo/lab", "route demo/lab"] * 2)
    assert [channel.fileno() for channel in world.helper.sockets[:2]] == [-1, -1]
    assert rcode(world.ask("web.demo.vm")) == "NXDOMAIN"  # on the same port as before: the old ones were closed first


def test_nothing_is_asked_of_the_helper_while_all_is_well(world: World) -> None:
    world.add(LAB)
    world.naming.start()
    eventually(lambda: len(world.helper.calls) == 2)
    for number in range(3):
        world.naming.poke()
        # A network that comes later is seen later: then the pokes before it have been looked at.
        world.add(replace(LAB, name=f"n{number}", cidr=IPv4Network(f"127.31.{number}.0/24")))
        eventually(lambda: world.helper.calls[-1] == f"route demo/n{number}")  # noqa: B023 - it is called here
    assert world.helper.calls.count("sockets demo/lab") == 1


@pytest.mark.parametrize("operation", ["sockets", "route"])
def test_what_failed_is_said_once_and_tried_again(world: World, operation: str) -> None:
    world.helper.broken.add(operation)
    other = replace(LAB, name="other", cidr=IPv4Network("127.30.9.0/24"))
    world.add(LAB)
    world.naming.start()
    for _ in range(3):
        before = len(world.helper.calls)
        world.naming.poke()
        eventually(lambda: len(world.helper.calls) > before)  # noqa: B023 - it is called here
    assert world.log.getvalue().count("the test wants it so") == 1
    world.helper.broken.clear()
    world.add(other)
    eventually(lambda: {"route demo/lab", "route demo/other"} <= set(world.helper.calls))
    assert rcode(world.ask("web.demo.vm")) == "NXDOMAIN"
    if operation == "route":
        assert world.helper.calls.count("sockets demo/lab") == 1


def test_one_network_that_fails_is_no_other_ones_trouble(world: World) -> None:
    taken, _ = bound("127.30.9.1")
    world.helper.ports["127.30.9.1"] = taken.getsockname()[1]
    world.add(replace(LAB, name="all-before", cidr=IPv4Network("127.30.9.0/24")))
    world.add(LAB)
    world.naming.start()
    eventually(lambda: "route demo/lab" in world.helper.calls)
    assert "Address already in use" in world.log.getvalue()


def test_egress_is_asked_of_the_helper(world: World, tmp_path: Path) -> None:
    """What is let through is said in the helper's terms; that it comes before the answer, the drivers' tests show."""
    asked: list[dict[str, object]] = []
    world.helper.allow_addresses = lambda **fields: asked.append(fields)  # type: ignore[attr-defined]

    install = world.inventory.install
    gateways = Gateways(None, install, Log(world.log), connect=world.helper.connect, index_of=len)  # type: ignore[arg-type]
    allow = gateways._allow(("demo", "lab"))
    allow("*.example.org", (IPv4Address("192.0.2.1"),), 120)
    (fields,) = asked
    assert fields == {"install": install, "environment": "demo", "network": "lab", "name": "*.example.org", "addresses": ["192.0.2.1"], "seconds": 120}  # fmt: skip

    def refuse(**fields: object) -> None:
        raise Refusal(Code.FAILED, "no rules yet")

    world.helper.allow_addresses = refuse  # type: ignore[attr-defined]
    with pytest.raises(BangerError, match="no rules yet"):
        allow("*.example.org", (IPv4Address("192.0.2.1"),), 120)
    gateways.close()


def loopback(world: World, port: int) -> Naming:
    made = Naming(world.paths, Log(world.log, Format.HUMAN), port=port, connect=world.helper.connect)  # type: ignore[arg-type]
    made.start()
    return made


def test_the_host_asks_on_loopback(world: World) -> None:
    udp, tcp = bound()
    port = udp.getsockname()[1]
    udp.close()
    tcp.close()
    world.put_vm("web")
    naming = loopback(world, port)
    try:
        query = dns.message.make_query("web.vm", "A")
        eventually(lambda: listens(port))
        assert addresses(dns.query.udp(query, "127.0.0.1", SECONDS, port)) == [GUEST]
        outside = dns.message.make_query("example.org", "A")
        assert rcode(dns.query.tcp(outside, "127.0.0.1", SECONDS, port)) == "REFUSED"
    finally:
        naming.stop()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_taken_port_is_a_warning_and_no_more(world: World) -> None:
    udp, tcp = bound()
    world.add(LAB)
    naming = loopback(world, udp.getsockname()[1])
    try:
        eventually(lambda: "no DNS on 127.0.0.1" in world.log.getvalue())
        assert "BANGER_DNS_PORT" in world.log.getvalue()
        assert "warning" in world.log.getvalue()
    finally:
        naming.stop()
        udp.close()
        tcp.close()


@pytest.mark.parametrize(("text", "port"), [(None, PORT), ("", PORT), ("5353", 5353), ("0", 0)])
def test_the_port_on_loopback(text: str | None, port: int) -> None:
    assert loopback_port({} if text is None else {"BANGER_DNS_PORT": text}) == port


@pytest.mark.parametrize("text", ["x", "-1", "65536", "5 3", "٣"])
def test_no_port(text: str) -> None:
    with pytest.raises(BangerError, match="BANGER_DNS_PORT"):
        loopback_port({"BANGER_DNS_PORT": text})


def test_the_zone_is_read_again_only_when_names_have_changed(world: World) -> None:
    world.put_vm("web")
    reading = Database(world.paths.database, create=False)
    zones = Zones(reading)
    first = zones.current()
    EventLog(world.database, FakeClock()).append("demo", "vm/web", "Ready", "it is")
    assert zones.current() is first
    world.put_vm("db", address="127.30.7.12")
    second = zones.current()
    assert second is not first
    found = second.find((b"db", b"demo", b"vm"), Kind.A)
    assert found is not None
    assert found.exists
    reading.close()


def test_what_was_known_last_is_said_while_the_inventory_cannot_be_read(world: World) -> None:
    world.put_vm("web")
    reading = Database(world.paths.database, create=False)
    known, blind = Zones(reading), Zones(reading)
    zone = known.current()
    world.database.execute("DROP TABLE vms")
    assert known.current() is zone
    with pytest.raises(BangerError):
        blind.current()
    reading.close()


@pytest.mark.parametrize(
    ("egress", "nat", "outside", "only"),
    [
        (None, True, True, False),
        (None, False, False, False),
        ((), True, False, True),
        (("deb.example.org",), True, True, True),
        (("deb.example.org", "10.0.0.0/8"), True, True, False),
        (("10.0.0.0/8",), True, True, False),
    ],
)
def test_whose_names_are_looked_up(egress: tuple[str, ...] | None, nat: bool, outside: bool, only: bool) -> None:
    rules = None if egress is None else tuple(Egress(to=to) for to in egress)
    access = access_of(replace(LAB, egress=rules, nat=nat))
    assert (access.outside, access.only_egress) == (outside, only)
    assert access.egress == tuple(to for to in egress or () if "/" not in to)
