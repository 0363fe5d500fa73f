"""Hosts made of network namespaces: guests behind real taps, and an outside that knows nothing of them.

A guest's side of a tap is a second tap in a namespace of its own; a thread carries frames between the two, as a VMM does.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from reconciler.model.ids import mac_address
from tests.host.netns import CLONE_NEWNET, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF, attach

T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 2.5
"""Seconds until a connection that is to fail counts as failed: its first packet is sent again after one."""


class Space:
    """A network namespace. Without `fresh`, the one that the caller is in."""

    def __init__(self, *, fresh: bool = True) -> None:
        def make() -> int:
            if fresh:
                assert _LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = _in_thread(make) if fresh else make()
        if fresh:
            self.ip("link set lo up")

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, run in here."""

        def enter() -> T:
            assert _LIBC.setns(self.fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            return function()

        return _in_thread(enter)

    def run(self, *argv: str) -> str:
        enter = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *argv]
        done = subprocess.run(enter, pass_fds=[self.fd], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def ip(self, words: str) -> str:
        return self.run("ip", *words.split())

    def listen(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        def make() -> socket.socket:
            found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((address, port))
            if kind == socket.SOCK_STREAM:
                found.listen()
            found.settimeout(PATIENCE)
            return found

        return self.call(make)

    def reaches(self, address: str, port: int, server: Space, at: str, at_port: int = 0) -> str | None:
        """Connects to an address while `server` listens `at` one; the source that it sees, None if none comes."""
        with server.listen(at, at_port or port) as listener:
            try:
                with self.call(lambda: socket.create_connection((address, port), PATIENCE)):
                    connection, seen = listener.accept()
                    connection.close()
                    return str(seen[0]).removeprefix("::ffff:")
            except OSError:
                return None

    def packets(self, device: str) -> socket.socket:
        """Every frame that a device of this namespace gets."""

        def make() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            found.bind((device, 0))
            found.settimeout(10)
            return found

        return self.call(make)

    def close(self) -> None:
        os.close(self.fd)


class Outside(Space):
    """A server on the host's uplink `up0`: 192.0.2.2 and 2001:db8::2, with no route to any network of VMs."""

    ADDRESS, HOST = "192.0.2.2", "192.0.2.1"
    ADDRESS6, HOST6 = "2001:db8::2", "2001:db8::1"

    def __init__(self, host: Space) -> None:
        super().__init__()
        subprocess.run(
            ["ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", f"/proc/self/fd/{self.fd}"],
            check=True,
            pass_fds=[self.fd],
        )
        for space, device, four, six in (
            (host, "up0", self.HOST, self.HOST6),
            (self, "eth0", self.ADDRESS, self.ADDRESS6),
        ):
            space.ip(f"addr add {four}/24 dev {device}")
            space.ip(f"addr add {six}/64 dev {device} nodad")
            space.ip(f"link set {device} up")
        # A veth that has just come up may miss the first solicitation, and the next one follows a second later.
        macs = [
            json.loads(space.ip(f"-j link show {device}"))[0]["address"]
            for space, device in ((host, "up0"), (self, "eth0"))
        ]
        host.ip(f"neigh add {self.ADDRESS6} lladdr {macs[1]} dev up0")
        self.ip(f"neigh add {self.HOST6} lladdr {macs[0]} dev eth0")


class Guest(Space):
    """What a VM is to the network: the far side of its tap."""

    def __init__(
        self, tap: str, install: str, vm: str, address: str, gateway: str, address6: str = "", gateway6: str = ""
    ):
        super().__init__()
        self.address, self.address6, self.mac = address, address6, mac_address(install, "demo", vm)
        near = attach(tap)
        far = self.call(lambda: _tap("eth0"))
        self._fds = (near, far, os.eventfd(0, os.EFD_CLOEXEC))
        self._pump = threading.Thread(target=self._carry)
        self._pump.start()
        self.ip(f"link set eth0 address {self.mac} up")
        self.ip(f"addr add {address}/24 dev eth0")
        self.ip(f"route add default via {gateway}")
        if address6:
            self.ip(f"addr add {address6}/64 dev eth0 nodad")
            self.ip(f"route add default via {gateway6}")

    def send(self, *frames: bytes) -> None:
        """Puts frames on the wire as they are."""
        for frame in frames:
            os.write(self._fds[0], bytes(10) + frame)  # virtio_net_hdr: nothing offloaded

    def _carry(self) -> None:
        near, far, stop = self._fds
        poll = select.poll()
        for fd in self._fds:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == stop:
                    return
                try:
                    os.write(far if fd == near else near, os.read(fd, 65536))
                except OSError:
                    pass  # the device is down

    def close(self) -> None:
        os.eventfd_write(self._fds[2], 1)
        self._pump.join()
        for fd in self._fds:
            os.close(fd)
        super().close()


def frame(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame."""
    return _mac(target) + _mac(source) + struct.pack("!H", kind) + payload


def arp(source: str, sender_mac: str, sender: str, target: str) -> bytes:
    """An ARP request to everybody."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + _mac(sender_mac) + socket.inet_aton(sender)
    return frame(source, "ff:ff:ff:ff:ff:ff", 0x0806, body + bytes(6) + socket.inet_aton(target))


def ipv4(source: str, target: str) -> bytes:
    """An IPv4 packet of UDP to port 9 without content."""
    udp = struct.pack("!HHHH", 9, 9, 8, 0)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *map(socket.inet_aton, (source, target))
    )
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp


def ipv6(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """An IPv6 packet with hop limit 255; the checksum of ICMPv6 is filled in."""
    addresses = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, target))
    if protocol == 58:
        pseudo = addresses + struct.pack("!II", len(payload), protocol)
        payload = payload[:2] + struct.pack("!H", _checksum(pseudo + payload)) + payload[4:]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + addresses + payload


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return fd


def _in_thread(function: Callable[[], T]) -> T:
    results: list[T] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
