"""Networks with real guests and a controller, on a host with an uplink: whom they reach, and what is put back.

All of it, guests and controller too, is in one network namespace of its own. What a guest sends, its busybox sends.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.host.conftest import Artifacts
from tests.host.controlling import controller, until
from tests.host.home import Home
from tests.host.lab import FOREIGN, foreign
from tests.host.netns import CLONE_NEWNET, MARKS
from tests.host.spaces import Outside, Space

pytestmark = MARKS

CIDR = "172.30.9.0/24"
WEB, DB, GATEWAY = "172.30.9.10", "172.30.9.11", "172.30.9.1"
PORT = 8022
SECONDS = 4
"""How long something is tried that is to fail: a connection's first packet is sent again after one second, and after three."""


@contextmanager
def own_namespace() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@dataclass
class Site:
    """Two guests, `web` and `db`, on a network of the host `host`, which has the uplink to `outside`."""

    home: Home
    host: Space
    outside: Outside

    def write(self, **network: Any) -> None:
        """The file, with more keys of the network."""
        self.home.write(
            {
                "web": {"image": "base", "network": "lab", "address": WEB, "ports": [f"{PORT}:22"]},
                "db": {"image": "base", "network": "lab", "address": DB},
            },
            networks={"lab": {"cidr": CIDR, **network}},
        )

    def change(self, **network: Any) -> None:
        """Edits the file, and waits until the controller has done all that follows."""
        self.write(**network)
        until(self.settled, "the edit is done")

    def settled(self) -> bool:
        items = self.home.items()
        own = items[f"environment/{self.home.environment}"]
        busy = [c for item in items.values() for c in item["conditions"] if c["type"] == "Progressing"]
        return own["generation"] == own["observedGeneration"] and not busy and not self.home.planned()

    def greeted(self, vm: str, address: str, port: int = 22) -> bool:
        """Whether a guest that connects to a TCP port hears what an ssh server says first."""
        script = '/run/banger/busybox nc "$0" "$1" </dev/null | head -c 4'
        return self.home.run("exec", vm, "--", "sh", "-c", script, address, str(port)).stdout == "SSH-"

    def cut_off(self, vm: str, address: str, port: int = 22) -> bool:
        """Whether what a guest sends to a TCP port stays without any answer, a refusal among them."""
        script = f'timeout {SECONDS} /run/banger/busybox nc "$0" "$1" </dev/null'
        done = self.home.run("exec", vm, "--", "sh", "-c", script, address, str(port), check=False)
        return done.stdout == "" and done.returncode != 0 and "refused" not in done.stderr

    def tables(self) -> list[tuple[str, str]]:
        return sorted(self.home.tables())

    def rules(self) -> str:
        """Our tables, as nft lists them without what is counted."""
        listed = [
            subprocess.run(["nft", "-s", "list", "table", *table], capture_output=True, text=True, check=True).stdout
            for table in self.tables()
        ]
        return "".join(listed)


@pytest.fixture(scope="module")
def site(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with own_namespace():
        host = Space(fresh=False)
        host.ip("link set lo up")
        subprocess.run(["nft", "-f", "-"], input=FOREIGN, text=True, check=True)
        outside = Outside(host)
        home = Home(tmp_path_factory.mktemp("site") / "home", artifact_cache.cache, f"t{secrets.token_hex(3)}")
        made = Site(home, host, outside)
        made.write()
        before = foreign()
        try:
            with controller(home):
                until(
                    lambda: all(home.items().get(f"vm/{vm}", {}).get("ready") for vm in ("web", "db")), "both are ready"
                )
                until(made.settled, "everything is settled")
                yield made
        finally:
            home.destroy()
            left = (home.vmms(), home.links(), home.tables())
            unchanged = foreign() == before
            outside.close()
            host.close()
    assert left == ({}, {}, [])
    assert unchanged


def test_guests_reach_each_other_by_name(site: Site) -> None:
    for name in ("db", f"db.{site.home.environment}.vm", DB):
        assert site.greeted("web", name), name
    assert site.home.exec("web", "getent", "hosts", DB).split() == [DB, f"db.{site.home.environment}.vm"]


def test_what_a_guest_sends_is_counted(site: Site) -> None:
    def sent() -> int:
        """As the controller measures it."""
        found = json.loads(site.home.run("vm", "stats", "--interval", "10ms", "-o", "json", "db").stdout)["items"]
        assert [item["name"] for item in found] == ["db"]
        return int(found[0]["network"]["sent"])

    before = sent()
    assert len(site.home.exec("db", "head", "-c", "1000000", "/dev/zero")) == 1_000_000
    assert 1_000_000 <= sent() - before < 3_000_000


def test_a_guest_reaches_the_outside_in_the_hosts_name(site: Site) -> None:
    with site.outside.listen(Outside.ADDRESS, 4000) as listener:
        listener.settimeout(30)
        command = ["sh", "-c", f"/run/banger/busybox nc {Outside.ADDRESS} 4000 </dev/null"]
        asking = site.home.start("exec", "web", "--", *command)
        connection, source = listener.accept()
        connection.close()
        assert asking.wait(30) == 0
    assert source[0] == Outside.HOST


@pytest.mark.parametrize("address", ["127.0.0.1", Outside.HOST, GATEWAY])
def test_the_host_reaches_a_published_port(site: Site, address: str) -> None:
    assert heard(site.host, address, PORT) == b"SSH-"


def test_others_reach_a_published_port_and_nothing_else(site: Site) -> None:
    assert heard(site.outside, Outside.HOST, PORT) == b"SSH-"
    site.outside.ip(f"route add {CIDR} via {Outside.HOST}")
    try:
        assert heard(site.outside, WEB, 22) == b""
    finally:
        site.outside.ip(f"route del {CIDR}")


def test_a_guest_that_forges_reaches_nobody(site: Site) -> None:
    forged, device = "172.30.9.50", ("dev", "eth0")
    site.home.exec("db", "ip", "address", "add", f"{forged}/24", *device)
    try:
        for address in (WEB, GATEWAY):
            site.home.exec("db", "ip", "route", "add", f"{address}/32", *device, "src", forged)
        assert site.cut_off("db", WEB)
        assert site.cut_off("db", GATEWAY, PORT)
    finally:
        for address in (WEB, GATEWAY):
            site.home.run("exec", "db", "--", "ip", "route", "del", f"{address}/32", *device, check=False)
        site.home.exec("db", "ip", "address", "del", f"{forged}/24", *device)
    assert site.greeted("db", WEB)
    assert site.greeted("db", GATEWAY, PORT)


def test_rules_change_while_guests_run(site: Site) -> None:
    before = site.home.vmms()
    try:
        site.change(isolated=True)
        assert site.cut_off("web", DB)
        assert site.home.exec("web", "getent", "hosts", DB) != ""
        site.change(egress=[{"to": f"{Outside.ADDRESS}/32", "ports": [4001]}])
        # A port without a listener is refused by its host: that is an answer.
        assert not site.cut_off("web", Outside.ADDRESS, 4001)
        assert site.cut_off("web", Outside.ADDRESS, 4002)
    finally:
        site.change()
    assert site.greeted("web", DB)
    assert site.home.vmms() == before


@pytest.mark.parametrize("harm", ["flush table", "delete table"])
def test_rules_that_somebody_takes_away_come_back(site: Site, harm: str) -> None:
    before, tables = site.rules(), site.tables()
    assert len(tables) == 2
    for table in tables:
        subprocess.run(["nft", *harm.split(), *table], check=True)
    assert site.rules() != before
    until(lambda: site.rules() == before, "the rules are back")
    assert site.greeted("web", "db")
    site.home.run("resume")  # so that a later loss counts as a first one


def heard(space: Space, address: str, port: int) -> bytes:
    """What the first four bytes of a connection are; none where there is no connection."""

    def ask() -> bytes:
        try:
            with socket.create_connection((address, port), SECONDS) as connection:
                connection.settimeout(10)
                return connection.recv(4)
        except OSError:
            return b""

    return space.call(ask)
