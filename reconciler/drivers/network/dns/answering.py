"""What becomes of one question: an answer at once, later, or never."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.forwarding import Forwarder
from reconciler.drivers.network.dns.granting import Allow, Granter, lifetime
from reconciler.drivers.network.dns.message import Answer, Query, Rcode, UnusableError, read
from reconciler.drivers.network.dns.reports import Reports
from reconciler.drivers.network.dns.zone import Zone

Send = Callable[[bytes | None], None]
"""Takes the one answer to a question; None if there will be none."""


class Answering:
    """Decides. For the loop's thread only; never raises on account of what a client or a server sent.

    Parameters
    ----------
    zone: the names as they are now; asked for with every question.
    """

    def __init__(self, zone: Callable[[], Zone], forwarder: Forwarder, granter: Granter, reports: Reports) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._granter = granter
        self._reports = reports

    def answer(self, wire: bytes, client: str, access: Access, allow: Allow, send: Send, *, tcp: bool = False) -> None:
        """Calls `send` once, at once or later. `client` is an address that `access` admits."""
        try:
            query = read(wire, tcp=tcp)
        except UnusableError as unusable:
            send(unusable.reply)
            return
        try:
            found = self._zone().find(query.name, query.kind)
        except Exception as problem:  # the inventory cannot be read: our own names must not be asked for elsewhere
            self._reports.report("zone", f"the names of the VMs cannot be told: {problem}")
            send(query.reply(Rcode.SERVFAIL))
            return
        if found is not None:
            send(query.answer(found))
        elif not access.looks_up(query.name) or not query.recursive:
            send(query.reply(Rcode.REFUSED))
        elif query.wants_all:
            send(query.minimal())
        else:
            self._forwarder.ask(query, client, lambda answer: self._pass_on(query, answer, access, allow, send))

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
