"""What a guest sends to its host, over a bridge of banger's with its rules, and over one made by hand without any."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.conftest import Measurement, Record
from tests.host.home import Home

pytestmark = [pytest.mark.bench, pytest.mark.host]

MEGABYTES = 64
ROUNDS = 7


@pytest.fixture
def by_hand() -> Iterator[Callable[[str], str]]:
    """Makes a bridge with an address, and a tap on it; gives the tap's name."""
    made: list[str] = []

    def make(address: str) -> str:
        mark = secrets.token_hex(3)
        bridge, tap = f"hb{mark}", f"ht{mark}"
        for words in (
            f"link add {bridge} type bridge",
            f"addr add {address} dev {bridge}",
            f"link set {bridge} up",
            f"tuntap add {tap} mode tap vnet_hdr",
            f"link set {tap} master {bridge} up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
            made.extend(name for name in (bridge, tap) if f"add {name}" in words)
        return tap

    yield make
    for name in reversed(made):
        subprocess.run(["ip", "link", "del", name], check=False)


def words_of(pid: int) -> list[str]:
    """The command line of a VMM, with the folders that it was handed as open files by their names."""
    words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return [
        re.sub(r"/proc/self/fd/\d+", lambda at: os.readlink(f"/proc/{pid}/fd/{at[0].rpartition('/')[2]}"), w)
        for w in words
    ]


@contextmanager
def same_line(words: list[str], old: str, new: str, folder: Path) -> Iterator[None]:
    """The same QEMU, with another tap."""
    folder.mkdir(parents=True, exist_ok=True)
    for pipe in ("agent.in", "agent.out"):  # of the guest's agent, which nobody talks to
        os.mkfifo(folder / pipe)
    argv = [word.replace(f"ifname={old},", f"ifname={new},") for word in words if word != "-daemonize"]
    assert f"ifname={new}," in " ".join(argv)
    with subprocess.Popen(argv) as process:
        try:
            yield
        finally:
            process.kill()


def received(gateway: str, send: Callable[[int], subprocess.Popen[bytes]]) -> float:
    """Megabytes a second, from the first byte that arrives to the last."""
    with socket.create_server((gateway, 0)) as server:
        server.settimeout(120)
        with send(server.getsockname()[1]) as sender:
            connection, _ = server.accept()
            buffer, total, began = bytearray(1 << 20), 0, 0.0
            with connection:
                while got := connection.recv_into(buffer):
                    began = began or time.perf_counter()
                    total += got
            took = time.perf_counter() - began
            assert sender.wait(60) == 0
    assert total == MEGABYTES << 20
    return MEGABYTES / took


def test_a_bridge_with_rules_is_as_fast_as_one_by_hand(
    home: Home, subnet: Callable[[], str], by_hand: Callable[[str], str], record: Record
) -> None:
    """Two guests, each in a network of its own; the second one's QEMU is started again by hand, on a bridge by hand.

    They send by turns, so that what else the machine does meets both.
    """
    networks = {name: {"cidr": subnet()} for name in ("lab", "hand")}
    gateways = {name: str(ipaddress.ip_network(network["cidr"])[1]) for name, network in networks.items()}
    vms = {name: {"image": "base", "network": name} for name in networks}
    home.write(vms, networks=networks)
    home.run("apply")
    [pid] = [pid for pid, line in home.vmms().items() if f"{home.environment}/hand" in line]
    words = words_of(pid)
    [tap] = [name for name, alias in home.links().items() if alias.endswith(":vm/hand")]
    address = str(home.items()["vm/hand"]["address"])
    known = home.root / "state" / "vms" / home.environment / "hand" / "known_hosts"
    # Stopped, so that its disks stay; its links and rules, which stay too, would have the same addresses.
    home.write({**vms, "hand": {**vms["hand"], "state": "stopped"}}, networks=networks)
    home.run("apply")
    for name, alias in home.links().items():
        if alias.endswith("/hand"):
            subprocess.run(["ip", "link", "del", name], check=True)
    for table in home.tables():
        listing = subprocess.run(["nft", "list", "table", *table], capture_output=True, text=True, check=True)
        if "network/hand" in listing.stdout:
            subprocess.run(["nft", "delete", "table", *table], check=True)
    prefix = ipaddress.ip_network(networks["hand"]["cidr"]).prefixlen
    other = by_hand(f"{gateways['hand']}/{prefix}")

    def pour(gateway: str, port: int) -> list[str]:
        # From memory: what the guest's disk or its processor can do is not asked.
        return ["sh", "-c", f"head -c {MEGABYTES}M /dev/zero | /run/banger/busybox nc {gateway} {port}"]

    def ours(port: int) -> subprocess.Popen[bytes]:
        return home.start("exec", "lab", "--", *pour(gateways["lab"], port))

    def theirs(port: int) -> subprocess.Popen[bytes]:
        argv = ["ssh", "-F", "none", "-i", str(home.root / "state/ssh/id_ed25519"), "-o", "BatchMode=yes"]
        argv += ["-o", f"UserKnownHostsFile={known}", "-o", f"HostKeyAlias={known.read_text().split()[0]}"]
        script = pour(gateways["hand"], port)[-1]
        return subprocess.Popen([*argv, f"root@{address}", script], stdin=subprocess.DEVNULL)

    run_folder = home.root / "run" / "vms" / home.environment / "hand"
    with same_line(words, tap, other, run_folder):
        end = time.monotonic() + 120
        while subprocess.run(["ssh-keyscan", "-T", "2", address], capture_output=True, check=False).stdout == b"":
            assert time.monotonic() < end
        mine, raw = [], []
        for _ in range(ROUNDS):
            mine.append(received(gateways["lab"], ours))
            raw.append(received(gateways["hand"], theirs))
    a, b = statistics.median(mine), statistics.median(raw)
    record(
        Measurement("VM to host, time for the same bytes", f"{a:.0f} MB/s", f"{b:.0f} MB/s by hand", b / a, 1.1, "×")
    )
