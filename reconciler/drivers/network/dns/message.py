"""DNS messages, read and written; the one module that knows dnspython, which knows the wire format (RFC 1035).

Nothing that arrives is trusted: `read` and `Asked.read` take any bytes, and raise nothing but what they say. An answer
over UDP is at most as large as the client takes, and never above 1232 bytes, which pass any path in one piece.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.opcode import Opcode
from dns.rcode import Rcode

from reconciler.drivers.network.dns.zone import Address, Found, Kind, Name

__all__ = ["Answer", "Asked", "Query", "Rcode", "UnusableError", "read"]

UDP_MOST = 1232
"""Bytes: RFC 9715 and the DNS flag day of 2020."""
QUERY_MOST = 4096
"""Bytes of a question, options included; a real one has some dozens."""
TTL = 0
"""Of our own records, in seconds: VMs come and go, and asking again costs next to nothing."""

_UDP_LEAST = 512
_TCP_MOST = 65535
_HEADER = 12
_CHAIN = 16
_IN = dns.rdataclass.IN
_SOA = "localhost. nobody.invalid. 1 3600 600 86400 0"
_KINDS = {dns.rdatatype.A: Kind.A, dns.rdatatype.AAAA: Kind.AAAA, dns.rdatatype.PTR: Kind.PTR}
_META = range(128, 256)  # RFC 6895 3.1: questions about questions, such as zone transfers


class UnusableError(Exception):
    """What came is no question that can be answered. `reply` says so to the sender; None: better say nothing."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


class Query:
    """One question of a client. `name` is what the zone takes; `tcp` decides how much an answer may hold."""

    __slots__ = ("_message", "_question", "kind", "name", "tcp")

    def __init__(self, message: dns.message.Message, *, tcp: bool) -> None:
        self._message = message
        self._question = message.question[0]
        self.name: Name = tuple(label.lower() for label in self._question.name.labels[:-1])
        self.kind = _KINDS.get(self._question.rdtype, Kind.OTHER)
        self.tcp = tcp

    @property
    def wants_all(self) -> bool:
        return self._question.rdtype == dns.rdatatype.ANY

    @property
    def recursive(self) -> bool:
        """Whether the client wants others to be asked for it."""
        return bool(self._message.flags & dns.flags.RD)

    def reply(self, rcode: Rcode) -> bytes:
        """An answer with nothing in it."""
        return self._rendered(self._response(rcode))

    def answer(self, found: Found) -> bytes:
        """What the zone says, with authority."""
        response = self._response(Rcode.NOERROR if found.exists else Rcode.NXDOMAIN)
        response.flags |= dns.flags.AA
        if self.wants_all and found.exists:
            return self._minimal(response)
        records = [_address_record(address) for address in found.addresses]
        records += [_pointer_record(name) for name in found.names]
        if records:
            response.answer.append(dns.rrset.from_rdata_list(self._question.name, TTL, records))
        else:
            response.authority.append(dns.rrset.from_rdata(_named(found.apex), TTL, _soa_record()))
        return self._rendered(response)

    def minimal(self) -> bytes:
        """RFC 8482's answer to who wants everything there is: one record that says no more than that."""
        return self._minimal(self._response(Rcode.NOERROR))

    def forwarded(self, *, edns: bool = True) -> Asked:
        """The same question, as another server is asked it: with a random id, and none of the client's options."""
        flags = dns.flags.RD | (self._message.flags & (dns.flags.CD | dns.flags.AD))
        dnssec = bool(self._message.ednsflags & dns.flags.DO)
        # Not the library's own choice of an id: others could seed its generator.
        message = dns.message.make_query(
            self._question.name,
            self._question.rdtype,
            _IN,
            use_edns=0 if edns else None,
            payload=UDP_MOST if edns else None,
            want_dnssec=edns and dnssec,
            id=secrets.randbelow(1 << 16),
            flags=flags,
        )
        return Asked(message)

    def relay(self, answer: Answer, ttl_most: int | None = None) -> bytes:
        """What another server said, for this client; no record may be kept for more than `ttl_most` seconds."""
        theirs = answer.message
        rcode = theirs.rcode()
        # Without EDNS there is no room for the larger ones (RFC 6891 6.1.3).
        response = self._response(rcode if rcode < 16 else Rcode.SERVFAIL)
        response.flags |= theirs.flags & (dns.flags.AD | dns.flags.CD)
        response.answer, response.authority = theirs.answer, theirs.authority
        response.additional = theirs.additional
        if ttl_most is not None:
            for rrset in (*response.answer, *response.authority, *response.additional):
                rrset.ttl = min(rrset.ttl, ttl_most)
        try:
            return self._rendered(response)
        except (dns.exception.DNSException, ValueError):
            return self.reply(Rcode.SERVFAIL)

    def _minimal(self, response: dns.message.Message) -> bytes:
        response.answer.append(dns.rrset.from_rdata(self._question.name, TTL, _hinfo_record()))
        return self._rendered(response)

    def _response(self, rcode: Rcode) -> dns.message.Message:
        response = dns.message.make_response(self._message, recursion_available=True, our_payload=UDP_MOST, pad=0)
        response.set_rcode(rcode)
        return response

    def _rendered(self, response: dns.message.Message) -> bytes:
        try:
            return response.to_wire(max_size=self._most)
        except dns.exception.TooBig:
            # Empty rather than in part: clients differ in what they make of a part (RFC 2181 9).
            response.answer, response.authority, response.additional = [], [], []
            response.flags |= dns.flags.TC
            return response.to_wire(max_size=self._most)

    @property
    def _most(self) -> int:
        if self.tcp:
            return _TCP_MOST
        return min(UDP_MOST, max(_UDP_LEAST, self._message.payload))


def read(wire: bytes, *, tcp: bool = False) -> Query:
    """The question in what a client sent. Raises UnusableError."""
    try:
        message = dns.message.from_wire(wire)
    except Exception:  # whatever the library makes of it: it is no message
        raise UnusableError(_error(wire, Rcode.FORMERR)) from None
    if message.flags & dns.flags.QR:
        raise UnusableError(None)  # two servers would answer one another for ever
    if message.opcode() != Opcode.QUERY:
        raise UnusableError(_error(wire, Rcode.NOTIMP))
    if message.edns > 0:
        raise UnusableError(_newer(message))
    if len(message.question) != 1:
        raise UnusableError(_error(wire, Rcode.FORMERR))
    query = Query(message, tcp=tcp)
    question = message.question[0]
    if question.rdclass != _IN:
        raise UnusableError(query.reply(Rcode.REFUSED))
    transfer = question.rdtype in _META and not query.wants_all
    if transfer or question.rdtype in (dns.rdatatype.OPT, dns.rdatatype.NONE):
        raise UnusableError(query.reply(Rcode.NOTIMP))
    return query


def _error(wire: bytes, rcode: Rcode) -> bytes | None:
    """A header that says what is wrong, if there is a header of a question to answer to."""
    if len(wire) < _HEADER:
        return None
    try:
        head = dns.message.from_wire(wire, question_only=True, ignore_trailing=True, continue_on_error=True)
        if head.flags & dns.flags.QR:
            return None
        response = dns.message.Message(id=head.id)
        response.flags = dns.flags.QR | (head.flags & dns.flags.RD)
        response.set_opcode(head.opcode())
        response.set_rcode(rcode if head.opcode() == Opcode.QUERY else Rcode.NOTIMP)
        return response.to_wire()
    except Exception:  # the same: no message at all
        return None


def _newer(message: dns.message.Message) -> bytes:
    """To a version of EDNS that is still to be invented (RFC 6891 6.1.3)."""
    response = dns.message.make_response(message, our_payload=UDP_MOST, pad=0)
    response.set_rcode(Rcode.BADVERS)
    return response.to_wire(max_size=_UDP_LEAST)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way to another server."""

    message: dns.message.QueryMessage

    @property
    def wire(self) -> bytes:
        return self.message.to_wire()

    def read(self, wire: bytes) -> Answer | None:
        """The answer to this very question; None if that is something else, or nothing at all."""
        try:
            message = dns.message.from_wire(wire, ignore_trailing=True)
            return Answer(message) if self.message.is_response(message) else None
        except Exception:  # as in `read`
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What another server said."""

    message: dns.message.Message

    @property
    def truncated(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def final(self) -> bool:
        """Whether no other server would say anything else: the name has such records, or has not."""
        return self.message.rcode() in (Rcode.NOERROR, Rcode.NXDOMAIN)

    @property
    def dislikes_edns(self) -> bool:
        """RFC 6891 7: so do servers that are older than it."""
        return self.message.rcode() in (Rcode.FORMERR, Rcode.NOTIMP) and self.message.edns < 0

    def addresses(self) -> tuple[tuple[Address, ...], int]:
        """The addresses that the answer gives to the name in question, by aliases as well; and the longest TTL there.

        Records of other names do not count, whatever section they are in. Hints of HTTPS records do (RFC 9460).
        """
        if len(self.message.question) != 1:
            return (), 0
        name = self.message.question[0].name
        names: set[dns.name.Name] = set()
        aliases = {rrset.name: rrset for rrset in self.message.answer if rrset.rdtype == dns.rdatatype.CNAME}
        while name not in names and len(names) < _CHAIN:
            names.add(name)
            if name in aliases:
                name = aliases[name][0].target
        found: dict[Address, None] = {}
        ttl = 0
        for rrset in self.message.answer:
            if rrset.name not in names or rrset.rdclass != _IN:
                continue
            for record in rrset:
                for text in _texts(record):
                    found[IPv6Address(text) if ":" in text else IPv4Address(text)] = None
                    ttl = max(ttl, rrset.ttl)
        return tuple(found), ttl


def _texts(record: dns.rdata.Rdata) -> tuple[str, ...]:
    if record.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return (str(getattr(record, "address")),)  # noqa: B009 - not an attribute of every record
    if record.rdtype in (dns.rdatatype.HTTPS, dns.rdatatype.SVCB):
        hints = [getattr(value, "addresses", ()) for value in getattr(record, "params", {}).values()]
        return tuple(str(address) for addresses in hints for address in addresses)
    return ()


def _named(name: Name) -> dns.name.Name:
    return dns.name.Name((*name, b""))


@lru_cache(maxsize=4096)
def _address_record(address: Address) -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, "A" if address.version == 4 else "AAAA", str(address))


@lru_cache(maxsize=4096)
def _pointer_record(name: Name) -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, "PTR", _named(name).to_text())


@lru_cache(maxsize=1)
def _soa_record() -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, "SOA", _SOA)


@lru_cache(maxsize=1)
def _hinfo_record() -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, "HINFO", '"RFC8482" ""')
