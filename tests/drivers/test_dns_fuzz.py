"""Whatever arrives, it is ignored or answered properly. `python -m tests.fuzz.dns.packets` runs for longer."""

from __future__ import annotations

import os
import random
import socket
from ipaddress import IPv4Network

import dns.message
import pytest

from reconciler.drivers.network.dns.access import Access
from tests.fakes.nameserver import addresses, asking
from tests.fuzz.dns.packets import ZONE, Checker, corpus, damaged, run


def test_damaged_packets() -> None:
    counts = run(4000, seed=20)
    # The packets are worth something only if they get everywhere.
    assert {"ignored", "FORMERR", "NOTIMP", "NXDOMAIN", "NOERROR", "SERVFAIL", "REFUSED", "BADVERS", "answer taken"} <= set(counts)  # fmt: skip


def test_the_checker_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.drivers.network.dns.message.UDP_MOST", 4096)
    with pytest.raises(AssertionError, match="too large"):
        run(0, seed=0)
    with pytest.raises(AssertionError):
        Checker()._valid(dns.message.make_query("web.vm", "A").to_wire(), b"")


def test_a_server_under_damaged_packets_keeps_answering_and_leaks_nothing() -> None:
    seeds, generator = corpus(), random.Random(7)
    access = Access(sources=(IPv4Network("127.0.0.0/8"),))
    with asking(access, lambda: ZONE) as ours:
        assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(type=socket.SOCK_DGRAM) as channel:
            channel.connect(("127.0.0.1", ours.port))
            for number in range(2000):
                channel.send(damaged(seeds, generator))
                if number % 50 == 0:  # so that the socket's buffer does not drop them
                    assert addresses(ours.udp("web.vm")) == ["172.30.7.10"]
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", ours.port)) as channel:
                packet = damaged(seeds, generator)
                channel.sendall(len(packet).to_bytes(2, "big") + packet)
        assert addresses(ours.tcp("web.vm")) == ["172.30.7.10"]
        assert len(os.listdir("/proc/self/fd")) <= before + 8  # connections whose end is still to be seen
        assert ours.said == []
