"""What becomes of one question: an answer at once, later, or never."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.forwarding import Forwarder
from reconciler.drivers.network.dns.granting import Allow, Granter, lifetime
from reconciler.drivers.network.dns.message import Answer, Query, Rcode, UnusableError, read
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.zone import Zone

_ID = 2
"""Bytes (RFC 1035 4.1.1)."""
_SAID_MOST = 4096

Send = Callable[[bytes | None], None]
"""Takes the one answer to a question; None if there will be none."""


class Answering:
    """Decides. For the loop's thread only; never raises on account of what a client or a server sent.

    Parameters
    ----------
    zone: the names as they are now; asked for with every question. Another object when they are others.
    """

    def __init__(self, zone: Callable[[], Zone], forwarder: Forwarder, granter: Granter, reports: Reports) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._granter = granter
        self._reports = reports
        # The same zone says the same to the same bytes, but for the id in front, which the client is given back. Asking
        # is what programs do in loops: from here an answer costs a twentieth.
        self._said: dict[tuple[bytes, bool], bytes] = {}
        self._of: Zone | None = None

    def answer(self, wire: bytes, client: str, access: Access, allow: Allow, send: Send, *, tcp: bool = False) -> None:
        """Calls `send` once, at once or later. `client` is an address that `access` admits."""
        zone = self._current()
        key = (wire[_ID:], tcp)
        if (rest := self._said.get(key)) is not None:
            send(wire[:_ID] + rest)
            return
        try:
            query = read(wire, tcp=tcp)
        except UnusableError as unusable:
            send(unusable.reply)
            return
        if zone is None:  # nobody else is to be asked either: it may be one of our names
            send(query.reply(Rcode.SERVFAIL))
        elif (found := zone.find(query.name, query.kind)) is not None:
            reply = query.answer(found)
            if len(self._said) >= _SAID_MOST:
                self._said.clear()
            self._said[key] = reply[_ID:]
            send(reply)
        elif not access.looks_up(query.name) or not query.recursive:
            send(query.reply(Rcode.REFUSED))
        elif query.wants_all:
            send(query.minimal())
        else:
            self._forwarder.ask(query, client, lambda answer: self._pass_on(query, answer, access, allow, send))

    def _current(self) -> Zone | None:
        try:
            zone = self._zone()
        except Exception as problem:
            self._reports.report("zone", f"the names of the VMs cannot be told: {problem}")
            zone = None
        if zone is not self._of:
            self._said.clear()
            self._of = zone
        return zone

    def _pass_on(self, query: Query, answer: Answer | None, access: Access, allow: Allow, send: Send) -> None:
        if answer is None:
            send(query.reply(Rcode.SERVFAIL))
            return
        entries = access.matching(query.name)
        addresses, ttl = answer.addresses() if entries else ((), 0)
        wanted = access.to_allow(addresses)
        if not wanted:
            send(query.relay(answer))
            return
        seconds, visible = lifetime(ttl)

        def granted(allowed: bool) -> None:
            send(query.relay(answer, visible) if allowed else query.reply(Rcode.SERVFAIL))

        self._granter.ask(allow, entries, wanted, seconds, granted)
