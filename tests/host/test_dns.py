"""DNS on a real bridge: the helper binds the gateway, a guest in a network namespace of its own asks there."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from reconciler.daemon.naming import Naming
from reconciler.drivers.network.connect import open_helper
from reconciler.drivers.network.dns.upstreams import Upstreams
from reconciler.helper.client import HelperClient
from reconciler.lib.log import Format, Log
from reconciler.lib.paths import Paths
from reconciler.model.vm import Egress, Network, Protocol
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory, VmRow
from tests.api.conftest import eventually
from tests.fakes.host import vm
from tests.fakes.nameserver import FakeNameserver, answering
from tests.host.netns import MARKS, ROOT, ip, namespace_fixture  # noqa: F401 - a fixture

pytestmark = MARKS

LAB = Network(name="lab", cidr=IPv4Network("172.30.7.0/24"), mtu=1500, cidr6=IPv6Network("fd00:7::/64"))
GATEWAY, GUEST = "172.30.7.1", "172.30.7.10"
# One line in, one line out: what is asked and what comes back, or why nothing does.
ASKING = """
import json, sys
import dns.exception, dns.message, dns.query, dns.rcode
print("up", flush=True)
for line in sys.stdin:
    name, kind, server, way, source = json.loads(line)
    query = dns.message.make_query(name, kind)
    try:
        ask = dns.query.tcp if way == "tcp" else dns.query.udp
        answer = ask(query, server, 3, source=source)
        said = [dns.rcode.to_text(answer.rcode()), *sorted(r.to_text() for rrset in answer.answer for r in rrset)]
    except (dns.exception.DNSException, EOFError, OSError) as problem:
        said = [type(problem).__name__]
    print(json.dumps(said), flush=True)
"""


class Guest:
    """A process in a network namespace of its own, at the other end of a cable that hangs in a bridge."""

    def __init__(self, bridge: str, *addresses: str) -> None:
        command = ["unshare", "-n", sys.executable, "-c", ASKING]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        ip("link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", str(self.process.pid))
        ip("link", "set", "cable", "master", bridge, "up")
        for address in addresses:
            self._ip("address", "add", address, "dev", "eth0")
        self._ip("link", "set", "eth0", "up")

    def ask(
        self, name: str, kind: str = "A", way: str = "udp", source: str = GUEST, server: str = GATEWAY
    ) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, kind, server, way, source]) + "\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def plug(self, bridge: str) -> None:
        ip("link", "set", "cable", "master", bridge, "up")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _ip(self, *words: str) -> None:
        subprocess.run(["nsenter", "-n", "-t", str(self.process.pid), "ip", *words], check=True)


@dataclass
class Lab:
    """An installation with one network, whose bridge is real."""

    paths: Paths
    database: Database
    helper: HelperClient
    log: io.StringIO
    naming: Naming

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.database)

    def bridge(self, network: Network = LAB) -> str:
        made = self.helper.ensure_bridge(
            install=self.inventory.install,
            environment="demo",
            network=network.name,
            cidr=str(network.cidr),
            cidr6=str(network.cidr6 or ""),
            mtu=network.mtu,
        )
        self.inventory.put_network("demo", network)
        self.naming.poke()
        return made

    def no_bridge(self) -> None:
        assert self.helper.delete_bridge(install=self.inventory.install, environment="demo", network="lab")

    def answering(self, times: int) -> Callable[[], bool]:
        return lambda: self.log.getvalue().count("answering") == times


@pytest.fixture
def lab(namespace: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {GATEWAY}\nnameserver 127.0.0.1\n")  # the first is ourselves, and left out
    monkeypatch.setitem(Upstreams.__init__.__kwdefaults__, "files", (resolv,))
    ip("link", "set", "lo", "up")
    paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
    database = Database(paths.database, create=True)
    inventory = Inventory(database)
    address = IPv4Address(GUEST)
    spec = vm("web", network="lab", address=address)
    row = VmRow(
        environment="demo", name="web", id="demo-web", spec=spec, created={}, booted={}, address=address, forwards={},
        created_at=1.0, started_at=None,
    )  # fmt: skip
    inventory.put_vm(row)
    log = io.StringIO()
    naming = Naming(paths, Log(log, Format.HUMAN), port=0)
    with open_helper(uid=0, log=tmp_path / "helper.log") as helper:
        yield Lab(paths, database, helper, log, naming)
        naming.stop()
    database.close()


def test_a_guest_asks_its_gateway(lab: Lab) -> None:
    bridge = lab.bridge()
    guest = Guest(bridge, f"{GUEST}/24", "10.9.9.9/32")
    lab.naming.start()
    eventually(lab.answering(1))
    outside = answering("www.example.org 60 A 192.0.2.1")
    with FakeNameserver(outside, port=53) as upstream:
        for way in ("udp", "tcp"):
            assert guest.ask("web.demo.vm", way=way) == ["NOERROR", GUEST]
            assert guest.ask("web.vm", "AAAA", way) == ["NOERROR", "fd00:7::a"]
            assert guest.ask("10.7.30.172.in-addr.arpa", "PTR", way) == ["NOERROR", "web.demo.vm."]
            assert guest.ask("no.demo.vm", way=way) == ["NXDOMAIN"]
            assert guest.ask("www.example.org", way=way) == ["NOERROR", "192.0.2.1"]
        assert len(upstream.seen) == 2
        # An address that is not of the network: not even a refusal goes back to it.
        ip("route", "add", "10.9.9.9", "dev", bridge)
        assert guest.ask("web.demo.vm", source="10.9.9.9") == ["Timeout"]
        assert guest.ask("web.demo.vm", way="tcp", source="10.9.9.9") in (["EOFError"], ["ConnectionResetError"])
    guest.close()


def test_a_bridge_that_was_made_again_answers_again(lab: Lab) -> None:
    guest = Guest(lab.bridge(), f"{GUEST}/24")
    lab.naming.start()
    eventually(lab.answering(1))
    assert guest.ask("web.demo.vm") == ["NOERROR", GUEST]
    ip("link", "set", "cable", "nomaster")
    lab.no_bridge()
    guest.plug(lab.bridge())
    eventually(lab.answering(2))
    for way in ("udp", "tcp"):
        assert guest.ask("web.demo.vm", way=way) == ["NOERROR", GUEST]
    guest.close()


def test_sockets_outlive_an_address_that_goes_and_comes_back(lab: Lab) -> None:
    """So nothing is to be done when the address is repaired: the bridge is the same."""
    bridge = lab.bridge()
    guest = Guest(bridge, f"{GUEST}/24")
    lab.naming.start()
    eventually(lab.answering(1))
    ip("address", "del", f"{GATEWAY}/24", "dev", bridge)
    ip("address", "add", f"{GATEWAY}/24", "dev", bridge)
    for way in ("udp", "tcp"):
        assert guest.ask("web.demo.vm", way=way) == ["NOERROR", GUEST]
    assert lab.answering(1)()
    guest.close()


def test_another_cidr_is_another_gateway(lab: Lab) -> None:
    guest = Guest(lab.bridge(), f"{GUEST}/24", "172.30.9.10/24")
    lab.naming.start()
    eventually(lab.answering(1))
    ip("link", "set", "cable", "nomaster")
    lab.no_bridge()
    guest.plug(lab.bridge(replace(LAB, cidr=IPv4Network("172.30.9.0/24"))))
    eventually(lab.answering(2))
    assert guest.ask("web.demo.vm", source="172.30.9.10", server="172.30.9.1")[0] == "NOERROR"
    guest.close()


def test_a_network_that_leads_nowhere_resolves_nothing_outside(lab: Lab) -> None:
    guest = Guest(lab.bridge(replace(LAB, nat=False)), f"{GUEST}/24")
    lab.naming.start()
    eventually(lab.answering(1))
    with FakeNameserver(answering("www.example.org 60 A 192.0.2.1"), port=53) as upstream:
        assert guest.ask("www.example.org") == ["REFUSED"]
        assert guest.ask("web.demo.vm") == ["NOERROR", GUEST]
        assert upstream.seen == []
    guest.close()


def test_an_answer_opens_the_way_that_egress_names(lab: Lab) -> None:
    network = replace(LAB, egress=(Egress(to="*.example.org", protocol=Protocol.TCP, first=443, last=443),))
    guest = Guest(lab.bridge(network), f"{GUEST}/24")
    rules = {"cidr": str(LAB.cidr), "cidr6": str(LAB.cidr6), "nat": True, "isolated": False, "dns": True}
    rows = [(rule.to, rule.protocol.value, rule.first, rule.last) for rule in network.egress or ()]
    where = {"install": lab.inventory.install, "environment": "demo", "network": "lab"}
    lab.naming.start()
    eventually(lab.answering(1))
    with FakeNameserver(answering("www.example.org 60 A 192.0.2.1"), port=53) as upstream:
        # There are no rules yet: what nobody let through is not told.
        assert guest.ask("www.example.org") == ["SERVFAIL"]
        assert "*.example.org" in lab.log.getvalue()
        lab.helper.ensure_rules(**where, **rules, digest="0" * 16, restricted=True, egress=rows, vms=[], ports=[])
        assert "192.0.2.1" not in listed()
        assert guest.ask("www.example.org") == ["NOERROR", "192.0.2.1"]
        assert "192.0.2.1 timeout 2m" in listed()
        upstream.handle = answering("www.example.org 60 A 192.0.2.2")
        assert guest.ask("www.example.org") == ["NOERROR", "192.0.2.2"]
        assert "192.0.2.2 timeout 2m" in listed()
        assert guest.ask("www.example.com") == ["REFUSED"]
    guest.close()


def listed() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
