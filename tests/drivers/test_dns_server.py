"""What a client gets, over real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from reconciler.drivers.network.dns import streams
from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.zone import Host, Zone
from reconciler.lib.errors import BangerError
from tests.fakes.nameserver import SECONDS, Asking, addresses, asking, bound, rcode, refusing, truncated

ANYBODY = Access(sources=(IPv4Network("127.0.0.0/8"),))
ZONE = Zone(
    [
        Host(environment="demo", name="web", address=IPv4Address("172.30.7.10"), address6=IPv6Address("fd00:7::a")),
        Host(environment="prod", name="db", address=IPv4Address("172.30.7.11")),
    ],
    [IPv4Network("172.30.7.0/24")],
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends in these tests does not end because it idles."""
    monkeypatch.setattr(streams, "IDLE_SECONDS", 3 * SECONDS)


@pytest.fixture
def ours() -> Iterator[Asking]:
    with asking(ANYBODY, lambda: ZONE) as made:
        yield made


@pytest.mark.parametrize(("name", "kind", "answer"), [("web.demo.vm", "A", "172.30.7.10"), ("WEB.Demo.VM", "A", "172.30.7.10"), ("web.vm", "AAAA", "fd00:7::a"), ("10.7.30.172.in-addr.arpa", "PTR", "web.demo.vm.")])  # fmt: skip
def test_our_names(ours: Asking, name: str, kind: str, answer: str) -> None:
    for response in (ours.udp(name, kind), ours.tcp(name, kind)):
        assert (rcode(response), addresses(response)) == ("NOERROR", [answer])
        assert response.answer[0].ttl == 0  # it may be another VM's the next second
        assert response.flags & dns.flags.AA
        assert response.question[0].name.to_text(omit_final_dot=True) == name  # in the client's spelling


@pytest.mark.parametrize(("name", "kind", "code", "apex"), [("no.demo.vm", "A", "NXDOMAIN", "vm."), ("db.prod.vm", "AAAA", "NOERROR", "vm."), ("demo.vm", "A", "NOERROR", "vm."), ("9.7.30.172.in-addr.arpa", "PTR", "NXDOMAIN", "7.30.172.in-addr.arpa.")])  # fmt: skip
def test_no_is_an_answer_that_nobody_keeps(ours: Asking, name: str, kind: str, code: str, apex: str) -> None:
    response = ours.udp(name, kind)
    assert (rcode(response), addresses(response)) == (code, [])
    (authority,) = response.authority
    assert (authority.rdtype, authority.name.to_text()) == (dns.rdatatype.SOA, apex)
    assert (authority.ttl, authority[0].minimum) == (0, 0)  # RFC 2308: the lesser counts


def test_records_follow_the_zone_at_once() -> None:
    zones = [ZONE]
    with asking(ANYBODY, lambda: zones[-1]) as ours:
        assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]
        zones.append(Zone([Host(environment="demo", name="web", address=IPv4Address("172.30.7.99"))]))
        assert addresses(ours.udp("web.vm")) == ["172.30.7.99"]
        zones.append(Zone())
        assert rcode(ours.udp("web.vm")) == "NXDOMAIN"


def test_an_inventory_that_cannot_be_read_is_no_missing_name() -> None:
    def unreadable() -> Zone:
        raise BangerError("the state is damaged")

    with asking(ANYBODY, unreadable) as ours:
        assert [rcode(ours.udp("web.vm")) for _ in range(3)] == ["SERVFAIL"] * 3
    assert ours.said == ["the names of the VMs cannot be told: the state is damaged"]


def test_who_is_not_of_the_network_hears_nothing() -> None:
    access = Access(sources=(IPv4Network("127.0.0.1/32"),))
    with asking(access, lambda: ZONE) as ours, socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.5", 0))
        stranger.setblocking(False)
        stranger.sendto(dns.message.make_query("web.vm", "A").to_wire(), ("127.0.0.1", ours.port))
        assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]  # it was asked later, and is answered
        with pytest.raises(BlockingIOError):
            stranger.recv(4096)
        with socket.create_connection(("127.0.0.1", ours.port), SECONDS, ("127.0.0.5", 0)) as channel:
            assert turned_away(channel)
        assert addresses(ours.tcp("web.vm")) == ["172.30.7.10"]


def turned_away(channel: socket.socket) -> bool:
    """Whether a question is not even read."""
    try:
        channel.sendall(dns.message.make_query("web.vm", "A").to_wire(prepend_length=True))
    except (BrokenPipeError, ConnectionResetError):
        return True
    return closed(channel)


def closed(channel: socket.socket) -> bool:
    try:
        return channel.recv(1) == b""
    except ConnectionResetError:
        return True


def test_other_names_are_refused_where_nothing_leads_outside(ours: Asking) -> None:
    assert rcode(ours.udp("example.org")) == "REFUSED"
    assert rcode(ours.tcp("example.org")) == "REFUSED"
    assert rcode(ours.udp("8.8.8.8.in-addr.arpa", "PTR")) == "REFUSED"


def test_everything_there_is_is_one_small_record(ours: Asking) -> None:
    response = ours.udp("web.demo.vm", "ANY")
    assert addresses(response) == ['"RFC8482" ""']
    assert rcode(ours.udp("no.demo.vm", "ANY")) == "NXDOMAIN"


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "MAILB", "TSIG", "OPT", "TYPE0"])
def test_questions_about_questions_are_not_implemented(ours: Asking, kind: str) -> None:
    wire = dns.message.make_query("vm", "A").to_wire()
    asked = wire[:-4] + dns.rdatatype.from_text(kind).to_bytes(2, "big") + wire[-2:]
    answer = ours.raw(asked)
    assert answer is not None
    assert rcode(dns.message.from_wire(answer)) == "NOTIMP"


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_other_opcodes_are_not_implemented(ours: Asking, opcode: int) -> None:
    wire = bytearray(dns.message.make_query("web.vm", "A").to_wire())
    wire[2] = opcode << 3
    answer = ours.raw(bytes(wire))
    assert answer is not None
    assert answer[:2] == wire[:2]
    assert (answer[2] >> 7, answer[2] >> 3 & 15, answer[3] & 15) == (1, opcode, dns.rcode.NOTIMP)


def test_other_classes_are_refused(ours: Asking) -> None:
    response = ours.udp("version.bind", "TXT", rdclass="CH")
    assert rcode(response) == "REFUSED"


def test_an_answer_is_never_answered(ours: Asking) -> None:
    query = dns.message.make_query("web.vm", "A")
    assert ours.raw(dns.message.make_response(query).to_wire()) is None
    broken = bytearray(dns.message.make_response(query).to_wire())[:-3]
    assert ours.raw(bytes(broken)) is None


def test_a_newer_edns_is_told_of_ours(ours: Asking) -> None:
    response = ours.udp("web.vm", use_edns=1)
    assert (response.rcode(), response.edns, response.answer) == (dns.rcode.BADVERS, 0, [])


@pytest.mark.parametrize("payload", [0, 100, 512, 1232, 4096, 65535])
def test_edns_is_answered_with_edns_and_our_size(ours: Asking, payload: int) -> None:
    response = ours.udp("web.vm", use_edns=0, payload=payload)
    assert (response.edns, response.payload, addresses(response)) == (0, 1232, ["172.30.7.10"])
    assert ours.udp("web.vm").edns == -1


def test_broken_questions_get_the_header_that_says_so(ours: Asking) -> None:
    wire = dns.message.make_query("web.vm", "A", id=99).to_wire()
    for broken in (wire[:-1], wire + b"\0", wire[:12] + b"\xc0\x0c" + wire[-4:], wire[:4] + b"\0\2" + wire[6:]):
        answer = ours.raw(broken)
        assert answer is not None
        assert (len(answer), rcode(dns.message.from_wire(answer)), answer[:2]) == (12, "FORMERR", wire[:2])
    for nothing in (b"", b"\0", wire[:11]):
        assert ours.raw(nothing) is None


def test_a_packet_that_is_too_large_for_a_question_is_not_looked_at(ours: Asking) -> None:
    filler = dns.edns.GenericOption(65001, b"x" * 4100)
    query = dns.message.make_query("web.vm", "A", use_edns=0, options=[filler])
    assert ours.raw(query.to_wire(max_size=65535)) is None


def test_padding_is_not_paid_back(ours: Asking) -> None:
    query = dns.message.make_query("web.vm", "A", use_edns=0, payload=1232, options=[dns.edns.GenericOption(12, b"")])
    answer = ours.raw(query.to_wire())
    assert answer is not None
    assert len(answer) < 100


def test_one_connection_asks_many_times_and_at_once(ours: Asking) -> None:
    with socket.create_connection(("127.0.0.1", ours.port), SECONDS) as channel:
        queries = [dns.message.make_query(name, "A") for name in ("web.vm", "db.vm", "no.vm") * 20]
        channel.sendall(b"".join(query.to_wire(prepend_length=True) for query in queries))
        for query in queries:
            length = int.from_bytes(channel.recv(2, socket.MSG_WAITALL), "big")
            assert query.is_response(dns.message.from_wire(channel.recv(length, socket.MSG_WAITALL)))


def test_a_connection_that_says_nonsense_ends(ours: Asking) -> None:
    for sent in (b"\xff\xff", b"\0\0", b"\0\5hello"):
        with socket.create_connection(("127.0.0.1", ours.port), SECONDS) as channel:
            channel.sendall(sent)
            assert closed(channel), sent


def test_connections_are_few_and_an_idle_one_goes(ours: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.5)
    held = [socket.create_connection(("127.0.0.1", ours.port), SECONDS) for _ in range(streams.MOST_PER_CLIENT + 1)]
    assert turned_away(held[-1])
    with socket.create_connection(("127.0.0.1", ours.port), SECONDS, ("127.0.0.9", 0)) as other:
        query = dns.message.make_query("web.vm", "A")
        assert addresses(dns.query.tcp(query, "127.0.0.1", SECONDS, sock=other)) == ["172.30.7.10"]
    for channel in held[:-1]:
        assert closed(channel)
        channel.close()
    held[-1].close()
    assert addresses(ours.tcp("web.vm")) == ["172.30.7.10"]


def test_sockets_are_closed_when_the_network_goes(ours: Asking) -> None:
    with socket.create_connection(("127.0.0.1", ours.port), SECONDS) as channel:
        query = dns.message.make_query("web.vm", "A")
        dns.query.tcp(query, "127.0.0.1", SECONDS, sock=channel)  # it is in
        ours.server.close("test")
        assert closed(channel)
    udp, tcp = bound("127.0.0.1", ours.port)
    ours.server.open("test", udp, tcp, ANYBODY, refusing)
    assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]


def test_what_is_allowed_changes_while_it_answers(ours: Asking) -> None:
    ours.server.change("test", Access(sources=(IPv4Network("10.0.0.0/8"),)))
    with socket.create_connection(("127.0.0.1", ours.port), SECONDS) as channel:
        assert turned_away(channel)
    ours.server.change("test", ANYBODY)
    assert not truncated(ours.udp("web.vm"))


def test_stopping_closes_everything_and_may_be_repeated() -> None:
    with asking(ANYBODY) as ours:
        ours.server.stop()
        bound("127.0.0.1", ours.port)
        ours.server.stop()
        late = bound()
        ours.server.open("late", *late, ANYBODY, refusing)
        assert [channel.fileno() for channel in late] == [-1, -1]
