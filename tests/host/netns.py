"""What tests of real links share: a network namespace for each test, a helper in it, and ways to look and to ask.

The fixtures count where they are imported, and nowhere else: a module that imports `namespace_fixture` gives each of
its tests a network of its own. Their functions have names of their own, so that a test's argument shadows no import.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.drivers.network import bridge, tap
from reconciler.drivers.network.connect import open_helper
from reconciler.helper.client import HelperClient, encode_request
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Envelope, Request

MARKS = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun"),
]

ROOT = Path(__file__).parents[2]
CIDR = "172.30.7.0/24"
# Descriptor 3 and the environment of sd_listen_fds(3), then the program.
ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[2], sys.argv[2:])"
)
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


@pytest.fixture(name="namespace", autouse=True)
def namespace_fixture() -> Iterator[None]:
    """The test's thread, and all it starts, gets a network of its own; the host's links are out of reach."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
        yield
        assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


@pytest.fixture(name="install")
def install_fixture() -> str:
    return secrets.token_hex(6)


@pytest.fixture(name="helper")
def helper_fixture(tmp_path: Path) -> Iterator[HelperClient]:
    with open_helper(uid=0, log=tmp_path / "helper.log") as client:
        yield client


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def names() -> set[str]:
    return {link["ifname"] for link in json.loads(ip("-j", "link"))} - {"lo"}


def shown() -> dict[str, object]:
    """All that matters of every link, by name."""
    facts = ("ifindex", "flags", "mtu", "master", "group", "address", "ifalias", "operstate", "addr_info")
    return {link["ifname"]: {fact: link.get(fact) for fact in facts} for link in json.loads(ip("-d", "-j", "addr"))}


def owner(install: str, kind: LinkKind, name: str, uid: int = 0) -> LinkOwner:
    return LinkOwner(install, uid, "demo", kind, name)


class Network:
    """The network and VM that most tests are about."""

    def __init__(self, client: HelperClient, install: str) -> None:
        self.client, self.install = client, install

    def bridge(self, cidr: str = CIDR, mtu: int = 1500, network: str = "lab") -> str:
        return bridge.ensure(self.client, install=self.install, environment="demo", network=network, cidr=cidr, mtu=mtu)

    def tap(self, vm: str = "web", mtu: int = 1500) -> str:
        return tap.ensure(self.client, install=self.install, environment="demo", network="lab", vm=vm, mtu=mtu)

    def no_bridge(self) -> bool:
        return bridge.delete(self.client, install=self.install, environment="demo", network="lab")

    def no_tap(self) -> bool:
        return tap.delete(self.client, install=self.install, environment="demo", vm="web")


@pytest.fixture(name="network")
def network_fixture(helper: HelperClient, install: str) -> Network:
    return Network(helper, install)


def attach(name: str) -> int:
    """Opens a tap as a VMM does."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError:
        os.close(fd)
        raise
    return fd


class Raw:
    """A helper of our own to kill, driven by raw frames. `boot` is Python that runs in it first."""

    def __init__(self, boot: str = "") -> None:
        self.socket, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        code = f"import sys; sys.path.append({str(ROOT)!r})\n{boot}\nfrom reconciler.helper.__main__ import run; run()"
        argv = [sys.executable, "-I", "-S", "-c", code, "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        theirs.close()

    def send(self, request: Request) -> None:
        self.socket.sendall(encode_request(Envelope(secrets.token_hex(4), "", request)))

    close = lambda self: None  # noqa: E731 - a Connection, whose end the test decides

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


class Activated:
    """A helper on a listening socket, as systemd would start it, with the capabilities of its unit."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "helper.sock"
        self.log = folder / "activated.log"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.listen()
        code = f"import sys; sys.path.append({str(ROOT)!r}); from reconciler.helper.__main__ import run; run()"
        bounded = [
            "setpriv",
            "--bounding-set",
            "-all,+net_admin,+net_bind_service",
            "--inh-caps",
            "-all",
            "--no-new-privs",
            "--",
        ]
        argv = [*bounded, sys.executable, "-I", "-S", "-c", code]
        launcher = [sys.executable, "-c", ACTIVATE, str(listener.fileno()), *argv]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(launcher, pass_fds=[listener.fileno()], stderr=log)
        listener.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def as_user(uid: int, call: Callable[[], object]) -> str:
    """What `call` returns in a process of that uid, as text; an exception's text if it raises."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = str(call())
        except BaseException as problem:
            answer = f"{type(problem).__name__}: {getattr(problem, 'code', None) or problem}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer
