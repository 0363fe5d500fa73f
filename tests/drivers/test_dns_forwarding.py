"""Names that are not ours: asked of the host's servers, with fakes on loopback in their place."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from reconciler.drivers.network.dns import forwarding
from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.upstreams import Upstream, Upstreams
from tests.fakes.nameserver import (
    SECONDS,
    Asking,
    FakeNameserver,
    Handler,
    addresses,
    answering,
    asking,
    rcode,
    silent,
    truncated,
)

OUTSIDE = Access(sources=(IPv4Network("127.0.0.0/8"),), outside=True)
GOOD = answering("example.org. 300 A 192.0.2.1")


@contextlib.contextmanager
def with_upstreams(folder: Path, *handlers: Handler) -> Iterator[tuple[Asking, list[FakeNameserver]]]:
    """Our server, and fakes on 127.0.0.1, 127.0.0.2, … that it asks in this order."""
    with ExitStack() as stack:
        fakes: list[FakeNameserver] = []
        for number, handler in enumerate(handlers, 1):
            fake = FakeNameserver(handler, f"127.0.0.{number}", fakes[0].port if fakes else 0)
            fakes.append(stack.enter_context(fake))
        hosts = tuple(fake.host for fake in fakes)
        yield stack.enter_context(asking(OUTSIDE, folder=folder, upstreams=hosts, port=fakes[0].port)), fakes


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(forwarding, "TOTAL_SECONDS", 2.0)


def test_an_answer_is_passed_on(tmp_path: Path) -> None:
    handle = answering("EXAMPLE.org. 300 CNAME real.example.net.", "real.example.net. 60 A 192.0.2.1", "real.example.net. 60 A 192.0.2.2")  # fmt: skip
    with with_upstreams(tmp_path, handle) as (ours, _):
        for response in (ours.udp("Example.org"), ours.tcp("Example.org")):
            assert sorted(addresses(response)) == ["192.0.2.1", "192.0.2.2", "real.example.net."]
            assert [rrset.ttl for rrset in response.answer] == [300, 60]
            assert response.flags & dns.flags.RA
            assert not response.flags & dns.flags.AA
            assert response.edns == -1


def test_no_such_name_is_an_answer(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, answering(rcode="NXDOMAIN"), GOOD) as (ours, fakes):
        assert rcode(ours.udp("example.org")) == "NXDOMAIN"
        assert fakes[1].seen == []


def test_what_is_asked_upstream(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, GOOD) as (ours, (fake,)):
        ours.udp("example.org", use_edns=0, payload=4000, want_dnssec=True)
        ours.udp("example.org")
        first, second = fake.seen
        assert (first.edns, first.payload, bool(first.ednsflags & dns.flags.DO)) == (0, 1232, True)
        assert (second.edns, bool(second.ednsflags & dns.flags.DO)) == (0, False)


def test_ids_and_ports_are_random(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, GOOD) as (ours, (fake,)):
        for _ in range(32):
            ours.udp("example.org", id=7)
        ids = [query.id for query in fake.seen]
        ports = [port for _, port in fake.sources]
        for values in (ids, ports):
            assert len(set(values)) > 28
            steps = {later - earlier for earlier, later in pairwise(values)}
            assert len(steps) > 16  # not one after the other


def test_our_own_names_and_who_wants_no_recursion_are_never_asked_elsewhere(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, GOOD) as (ours, (fake,)):
        assert rcode(ours.udp("no.such.vm")) == "NXDOMAIN"
        assert rcode(ours.udp("example.org", flags=0)) == "REFUSED"
        assert addresses(ours.udp("example.org", "ANY")) == ['"RFC8482" ""']
        assert fake.seen == []


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("first", [silent, answering(rcode="SERVFAIL"), answering(rcode="REFUSED")])
def test_the_next_server_is_asked(tmp_path: Path, first: Handler) -> None:
    with with_upstreams(tmp_path, first, GOOD) as (ours, fakes):
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]
        assert [len(fake.seen) for fake in fakes] == [1, 1]


@pytest.mark.usefixtures("_impatient")
def test_who_was_silent_is_asked_last_for_a_while(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, silent, GOOD) as (ours, fakes):
        for _ in range(5):
            assert addresses(ours.udp("example.org")) == ["192.0.2.1"]
        assert [len(fake.seen) for fake in fakes] == [1, 5]


def test_nobody_there_is_noticed_at_once(tmp_path: Path) -> None:
    with FakeNameserver(GOOD, "127.0.0.2") as fake:
        hosts = ("127.0.0.1", "127.0.0.2")
        with asking(OUTSIDE, folder=tmp_path, upstreams=hosts, port=fake.port) as ours:
            assert addresses(ours.udp("example.org")) == ["192.0.2.1"]


@pytest.mark.usefixtures("_impatient")
def test_nobody_answers(tmp_path: Path) -> None:
    with with_upstreams(tmp_path, silent, silent) as (ours, fakes):
        assert rcode(ours.udp("example.org")) == "SERVFAIL"
        assert [len(fake.seen) for fake in fakes] == [2, 2]


def test_what_all_of_them_say_is_said(tmp_path: Path) -> None:
    refused = answering(rcode="REFUSED")
    with with_upstreams(tmp_path, refused, refused) as (ours, _):
        assert rcode(ours.udp("example.org")) == "REFUSED"


def test_a_host_that_asks_nobody(tmp_path: Path) -> None:
    with asking(OUTSIDE, folder=tmp_path) as ours:
        assert [rcode(ours.udp("example.org")) for _ in range(3)] == ["SERVFAIL"] * 3
        assert len(ours.said) == 1
        assert "resolv.conf" in ours.said[0]


@pytest.mark.usefixtures("_impatient")
def test_answers_to_other_questions_are_not_looked_at(tmp_path: Path) -> None:
    def forging(query: dns.message.Message, tcp: bool) -> list[bytes]:
        def forged(name: str = "example.org", kind: str = "A", id: int = query.id) -> bytes:
            other = dns.message.make_query(name, kind, id=id)
            return answering("example.org. 300 A 203.0.113.66")(other, tcp)[0]

        (real,) = GOOD(query, tcp)
        return [
            b"",
            b"nonsense",
            forged(id=query.id ^ 1),
            forged("evil.org"),
            forged(kind="AAAA"),
            query.to_wire(),
            real,
        ]

    with with_upstreams(tmp_path, forging) as (ours, _):
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]


def test_answers_from_elsewhere_do_not_arrive(tmp_path: Path) -> None:
    """A forger who knows id, question and port, and has another address."""

    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        (forged,) = answering("example.org. 300 A 203.0.113.66")(query, tcp)
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", fakes[0].port))
            stranger.sendto(forged, fakes[0].sources[-1])
        return GOOD(query, tcp)

    with with_upstreams(tmp_path, handle) as (ours, fakes):
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]


def test_a_guesser_meets_a_new_id_and_port(tmp_path: Path) -> None:
    def guessing(query: dns.message.Message, tcp: bool) -> list[bytes]:
        if len(fakes[0].seen) == 1:
            return [b"guess"] * 16
        return GOOD(query, tcp)

    with with_upstreams(tmp_path, guessing) as (ours, fakes):
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]
        assert fakes[0].sources[0] != fakes[0].sources[1]


def test_a_truncated_answer_is_fetched_over_tcp(tmp_path: Path) -> None:
    many = [f"example.org. 300 A 192.0.2.{number}" for number in range(200)]

    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return answering(*many)(query, tcp) if tcp else answering(flags=dns.flags.TC)(query, tcp)

    with with_upstreams(tmp_path, handle) as (ours, (fake,)):
        assert len(addresses(ours.tcp("example.org"))) == 200
        assert fake.over_tcp == 1
        # Over UDP there is no room for it, and the client is told to come again.
        for more in ({}, {"use_edns": 0, "payload": 4096}):
            response = ours.udp("example.org", **more)
            assert truncated(response)
            assert response.answer == []


@pytest.mark.parametrize(("payload", "most"), [(None, 512), (0, 512), (600, 600), (1232, 1232), (65535, 1232)])
def test_an_answer_over_udp_is_never_too_large(tmp_path: Path, payload: int | None, most: int) -> None:
    sizes = set()

    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return answering(*(f"example.org. 300 A 192.0.2.{number}" for number in range(count)))(query, tcp)

    with with_upstreams(tmp_path, handle) as (ours, _):
        for count in range(0, 80, 3):
            query = dns.message.make_query("example.org", "A", use_edns=payload is not None, payload=payload)
            answer = ours.wire(query)
            sizes.add(len(answer))
            assert truncated(dns.message.from_wire(answer)) == (
                len(dns.message.from_wire(answer).answer) == 0 and count > 0
            )
    assert most - 60 < max(sizes) <= most


def test_a_server_that_knows_no_edns_is_asked_without(tmp_path: Path) -> None:
    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        if query.edns < 0:
            return GOOD(query, tcp)
        response = dns.message.Message(id=query.id)
        response.flags = dns.flags.QR
        response.set_rcode(dns.rcode.FORMERR)
        return [response.to_wire()]

    with with_upstreams(tmp_path, handle) as (ours, (fake,)):
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]
        assert [query.edns for query in fake.seen] == [0, -1]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("said", [b"", b"\0", b"\0\5", b"\0\5hello", b"\xff\xff" + b"x" * 100])
def test_nonsense_over_tcp_is_a_failure_like_any_other(tmp_path: Path, said: bytes) -> None:
    with with_upstreams(tmp_path, answering(flags=dns.flags.TC)) as (ours, (fake,)):
        fake.frame = lambda answer: said
        assert rcode(ours.udp("example.org")) == "SERVFAIL"
        assert fake.over_tcp >= 1


@pytest.mark.usefixtures("_impatient")
def test_one_client_leaves_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "ATTEMPT_SECONDS", SECONDS)
    monkeypatch.setattr(forwarding, "TOTAL_SECONDS", SECONDS)

    def handle(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return GOOD(query, tcp) if query.question[0].name.to_text() == "example.org." else []

    with with_upstreams(tmp_path, handle) as (ours, _), socket.socket(type=socket.SOCK_DGRAM) as greedy:
        greedy.bind(("127.0.0.9", 0))
        greedy.settimeout(SECONDS)
        greedy.connect(("127.0.0.1", ours.port))
        for number in range(forwarding.MOST_PER_CLIENT + 3):
            greedy.send(dns.message.make_query(f"slow{number}.org", "A", id=number).to_wire())
        told = [dns.message.from_wire(greedy.recv(4096)) for _ in range(3)]
        assert [(answer.id, rcode(answer)) for answer in told] == [(64, "SERVFAIL"), (65, "SERVFAIL"), (66, "SERVFAIL")]
        assert addresses(ours.udp("example.org")) == ["192.0.2.1"]  # another client
        assert len(ours.said) == 1


def test_the_hosts_servers(tmp_path: Path) -> None:
    first, second = tmp_path / "resolved.conf", tmp_path / "resolv.conf"
    second.write_text(
        "# a comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver\nnameserver name.example.org\n"
        "nameserver 2001:db8::1\n nameserver 192.0.2.1\nnameserver 127.0.0.53 # ours\noptions edns0\n"
    )
    now = 0.0
    upstreams = Upstreams(lambda host: host == "127.0.0.53", files=(first, second), monotonic=lambda: now)
    found = upstreams.ordered()
    assert [server.address[:2] for server in found] == [("192.0.2.1", 53), ("2001:db8::1", 53)]
    upstreams.failed(found[0])
    assert upstreams.ordered() == [found[1], found[0]]
    now = 31.0
    assert upstreams.ordered() == found
    first.write_text("nameserver 192.0.2.9\n")  # as when systemd-resolved is started
    assert [server.host for server in upstreams.ordered()] == ["192.0.2.9"]
    first.write_text("# nobody\n")
    assert upstreams.ordered() == found
    second.unlink()
    assert upstreams.ordered() == []


def test_a_link_local_server_keeps_its_link(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver fe80::1%lo\n")
    (server,) = Upstreams(files=(file,)).ordered()
    assert server == Upstream(socket.AF_INET6, ("fe80::1", 53, 0, socket.if_nametoindex("lo")))
