"""How many questions the name server answers, and what that costs the controller around it."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from reconciler.daemon.zones import Zones
from reconciler.drivers.network.dns.access import Access
from reconciler.lib.paths import Paths
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory, VmRow
from tests.bench.conftest import Measurement, Record
from tests.fakes.host import vm
from tests.fakes.nameserver import asking

pytestmark = pytest.mark.bench

RATE = 2000
SECONDS = 5.0
VMS = 1000
ROOT = Path(__file__).parents[2]


def ask(port: int) -> None:
    """Sends so many questions a second, whatever comes back when, and prints how many were answered, and how late."""
    import dns.message
    from dns.rcode import NOERROR

    with socket.socket(type=socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        channel.connect(("127.0.0.1", port))
        channel.setblocking(False)
        count = int(RATE * SECONDS)
        packets = [dns.message.make_query(f"vm-{n % VMS}.demo.vm", "A", id=n).to_wire() for n in range(count)]
        sent: dict[int, float] = {}
        late: list[float] = []
        answers: list[bytes] = []
        began = time.perf_counter()
        while len(late) < count and time.perf_counter() - began < SECONDS + 5:
            due = min(count, int((time.perf_counter() - began) * RATE) + 1)
            for number in range(len(sent), due):
                sent[number] = time.perf_counter()
                channel.send(packets[number])
            select.select([channel], [], [], 0.0005)
            try:
                while answer := channel.recv(4096):
                    late.append(time.perf_counter() - sent[int.from_bytes(answer[:2], "big")])
                    answers.append(answer)
            except BlockingIOError:
                pass
        good = sum(dns.message.from_wire(answer).rcode() == NOERROR for answer in answers)
        late.sort()
        p99 = late[int(len(late) * 0.99)] if late else float("inf")
        print(count, good, p99, max(sent.values()) - began)


def test_two_thousand_questions_a_second_are_answered(tmp_path: Path, record: Record) -> None:
    paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
    writing = Database(paths.database, create=True)
    inventory = Inventory(writing)
    with writing.transaction():
        for number in range(VMS):
            name = f"vm-{number}"
            inventory.put_vm(
                VmRow(
                    environment="demo",
                    name=name,
                    id=name,
                    spec=vm(name, network="lab"),
                    created={},
                    booted={},
                    address=IPv4Address("172.30.0.2") + number,
                    forwards={},
                    created_at=1.0,
                    started_at=None,
                )
            )
    reading = Database(paths.database, create=False)
    with asking(Access(sources=(IPv4Network("127.0.0.0/8"),)), Zones(reading).current) as ours:
        before = time.process_time()
        program = f"from tests.bench.test_dns import ask; ask({ours.port})"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        spent = time.process_time() - before
        assert ours.said == []
    count, good, p99, took = (float(word) for word in done.stdout.split())
    reading.close()
    writing.close()
    share = 100 * spent / took
    record(
        Measurement(
            promise=f"DNS: {RATE} questions a second for {SECONDS:g} s, {VMS} VMs",
            ours=f"{good:.0f} answered, p99 {p99 * 1000:.1f} ms, {share:.0f} % of a CPU",
            theirs=f"{count:.0f} asked in {took:.2f} s",
            value=count - good,
            limit=0,
            unit=" lost",
        )
    )
