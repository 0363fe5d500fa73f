"""What the kernel really announces of real links, in a network namespace of each test's own."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.drivers.network.monitor import LinkWatch
from tests.host.netns import MARKS, ip, namespace_fixture

__all__ = ["namespace_fixture"]
pytestmark = MARKS

BRIDGE, TAP = "bgb-0123456789", "bgt-0123456789"
PATIENCE = 60.0  # seconds; only a failing test waits for it


@contextmanager
def told() -> Iterator[None]:
    """What is done in this block is told of. A watch of its own hears of nothing before it."""
    calls: queue.Queue[None] = queue.Queue()
    watch = LinkWatch(lambda: calls.put(None))
    watch.start()
    try:
        yield
        calls.get(timeout=PATIENCE)
    finally:
        watch.stop()


def test_what_happens_to_our_links_is_told() -> None:
    steps = [
        f"link add {BRIDGE} type bridge",
        f"addr add 172.30.7.1/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"tuntap add {TAP} mode tap",
        f"link set {TAP} master {BRIDGE}",
        f"link set {TAP} up",
        f"link set {TAP} nomaster",
        f"link set {BRIDGE} mtu 1400",
        f"link set {BRIDGE} alias other",
        f"addr del 172.30.7.1/24 dev {BRIDGE}",
        f"link set {BRIDGE} down",
        f"link set {BRIDGE} name br0",
        f"link set br0 name {BRIDGE}",
        f"link del {TAP}",
        f"link del {BRIDGE}",
    ]
    for step in steps:
        with told():
            ip(*step.split())


def test_what_happens_to_others_is_not() -> None:
    ip("link", "add", BRIDGE, "type", "bridge")
    ours = False
    calls: queue.Queue[bool] = queue.Queue()
    watch = LinkWatch(lambda: calls.put(ours))
    watch.start()
    try:
        for number in range(20):
            ip("link", "add", f"veth{number}", "type", "veth", "peer", "name", f"peer{number}")
            ip("addr", "add", f"10.9.{number}.1/24", "dev", f"veth{number}")
            ip("link", "set", f"veth{number}", "up")
            ip("link", "del", f"veth{number}")
        ours = True
        ip("link", "set", BRIDGE, "mtu", "1400")
        assert calls.get(timeout=PATIENCE)
    finally:
        watch.stop()


def test_more_than_the_socket_holds_is_told() -> None:
    """netlink(7): what does not fit in the buffer is dropped, and that is said."""
    ip("link", "add", BRIDGE, "type", "bridge")
    calls: queue.Queue[None] = queue.Queue()
    free = threading.Event()

    def changed() -> None:
        calls.put(None)
        assert free.wait(PATIENCE)

    watch = LinkWatch(changed)
    watch.start()
    try:
        ip("link", "set", BRIDGE, "mtu", "1400")
        calls.get(timeout=PATIENCE)
        # While the callback holds it up, a thousand announcements come, of strangers; the buffer takes some hundred.
        batch = "".join(f"link add veth{n} type veth peer name peer{n}\n" for n in range(250))
        batch += "".join(f"link set veth{n} mtu {mtu}\n" for mtu in (1400, 1300, 1200) for n in range(250))
        subprocess.run(["ip", "-batch", "-"], input=batch, check=True, capture_output=True, text=True)
        free.set()
        calls.get(timeout=PATIENCE)
    finally:
        watch.stop()
