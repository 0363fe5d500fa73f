"""Damaged DNS packets, and what must hold for every one of them.

    python -m tests.fuzz.dns.packets [COUNT [SEED]]

The seeds stand in `corpus/`, one per file, as hexadecimal. The same seed number makes the same packets. A packet is
taken for a client's question, and for another server's answer to a question of ours; nothing is sent anywhere.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.answering import Answering
from reconciler.drivers.network.dns.message import UDP_MOST, Answer, Asked, Query, read
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.zone import Host, Zone

CORPUS = Path(__file__).parent / "corpus"
HEADER = 12
LEAST = 512

ZONE = Zone(
    [Host(environment="demo", name="web", address=IPv4Address("172.30.7.10"), address6=IPv6Address("fd00:7::a"))],
    [IPv4Network("172.30.7.0/24"), IPv6Network("fd00:7::/64")],
)
ACCESS = Access(sources=(IPv4Network("172.30.7.0/24"),), outside=True, egress=("*.org",), ipv6=True)


def corpus() -> list[bytes]:
    """Every seed, in the order of the files' names."""
    return [
        bytes.fromhex("".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
        for path in sorted(CORPUS.glob("*.hex"))
    ]


def damaged(seeds: list[bytes], generator: random.Random) -> bytes:
    """One of the seeds, with some bytes changed, gone, added, or taken from another seed."""
    packet = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(0, 6)):
        if not packet:
            break
        at = generator.randrange(len(packet))
        match generator.randrange(8):
            case 0:
                packet[at] = generator.randrange(256)
            case 1:
                packet[at] ^= 1 << generator.randrange(8)
            case 2:
                del packet[at:]
            case 3:
                del packet[at : at + generator.randint(1, 8)]
            case 4:
                packet[at:at] = generator.randbytes(generator.randint(1, 16))
            case 5:
                packet[at : at + 2] = (0xC000 | generator.randrange(max(1, len(packet)))).to_bytes(2, "big")
            case 6:
                field = generator.randrange(2, HEADER)
                packet[field : field + 1] = generator.choice((b"\0", b"\1", b"\2", b"\xff", b"\x80"))
            case 7:
                other = generator.choice(seeds)
                start = generator.randrange(len(other))
                packet[at:] = other[start:]
    return bytes(packet)


class _Echo:
    """In the forwarder's place: the packet under test is what the other server says."""

    def __init__(self) -> None:
        self.packet = b""

    def ask(self, query: Query, client: str, done: Callable[[Answer | None], None]) -> None:
        asked = query.forwarded()
        # Its id, so that more than one of 65,536 gets further.
        done(asked.read(asked.wire[:2] + self.packet[2:]))


class _AtOnce:
    """In the egress worker's place."""

    def ask(
        self, allow: object, entries: object, addresses: object, seconds: int, done: Callable[[bool], None]
    ) -> None:
        done(60 <= seconds <= 86400)


class Checker:
    """Holds every packet against what must be true. AssertionError, or whatever escaped, names the packet."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.counts: Counter[str] = Counter()
        self._echo = _Echo()
        reports = Reports(self.said.append)
        self._answering = Answering(lambda: ZONE, self._echo, _AtOnce(), reports)  # type: ignore[arg-type]
        self._outside = read(dns.message.make_query("www.example.org", "A", use_edns=0, payload=4096).to_wire())

    def check(self, packet: bytes, other: bytes) -> None:
        """As a question over UDP and over TCP, to which another server says `other`; and as an answer."""
        self._echo.packet = other
        try:
            for tcp in (False, True):
                self._question(packet, tcp=tcp)
            self._answer(packet)
        except Exception as problem:
            raise AssertionError(f"{packet.hex()} with {other.hex()}: {problem!r}") from problem

    def _question(self, packet: bytes, *, tcp: bool) -> None:
        sent: list[bytes | None] = []
        self._answering.answer(packet, "172.30.7.10", ACCESS, lambda *grant: None, sent.append, tcp=tcp)
        (reply,) = sent
        if reply is None:
            self.counts["ignored"] += 1
            assert len(packet) < HEADER or packet[2] & 0x80, "a question was ignored"
            return
        assert len(packet) >= HEADER and not packet[2] & 0x80, "an answer was answered"
        assert len(reply) <= (65535 if tcp else _most(packet)), "too large"
        self._valid(reply, packet)

    def _answer(self, packet: bytes) -> None:
        asked = Asked(self._outside.forwarded().message)
        answer = asked.read(asked.wire[:2] + packet[2:])
        if answer is None:
            self.counts["answer ignored"] += 1
            return
        self.counts["answer taken"] += 1
        answer.addresses()
        reply = self._outside.relay(answer, 60)
        assert len(reply) <= UDP_MOST, "too large"
        assert all(rrset.ttl <= 60 for rrset in dns.message.from_wire(reply).answer)

    def _valid(self, reply: bytes, packet: bytes) -> None:
        message = dns.message.from_wire(reply)
        code = dns.rcode.to_text(message.rcode())
        self.counts[code] += 1
        assert message.flags & dns.flags.QR
        assert reply[:2] == packet[:2], "another id"
        assert code in {"NOERROR", "NXDOMAIN", "FORMERR", "SERVFAIL", "NOTIMP", "REFUSED", "BADVERS", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI", "12", "13", "14", "15"}, code  # fmt: skip


def _most(packet: bytes) -> int:
    """Bytes that the client can take, as far as that can be read."""
    try:
        return min(UDP_MOST, max(LEAST, dns.message.from_wire(packet).payload))
    except Exception:
        return LEAST


def run(count: int, seed: int) -> Counter[str]:
    """Checks every seed with every other, then `count` damaged packets. AssertionError at the first that breaks a rule."""
    checker, seeds, generator = Checker(), corpus(), random.Random(seed)
    for packet, other in itertools.product(seeds, repeat=2):
        checker.check(packet, other)
    for _ in range(count):
        checker.check(damaged(seeds, generator), damaged(seeds, generator))
    return checker.counts


if __name__ == "__main__":
    wanted, number = [*map(int, sys.argv[1:]), *(100_000, 1)[len(sys.argv) - 1 :]]
    began = time.monotonic()
    for outcome, times in run(wanted, number).most_common():
        print(f"{times:>10}  {outcome}")
    print(f"{wanted} packets in {time.monotonic() - began:.1f} s")
