"""The helper as systemd starts it: shared by users, stalled by some, and asked by many at once.

Each test has a network namespace of its own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.drivers.network.connect import open_helper
from reconciler.drivers.network.probe import read_links
from reconciler.helper.client import HelperClient
from reconciler.helper.names import LinkKind
from reconciler.helper.protocol import Code
from reconciler.lib.errors import BangerError
from tests.host.netns import (
    CIDR,
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    MARKS,
    TUNSETIFF,
    Activated,
    Network,
    as_user,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    names,
    namespace_fixture,  # noqa: F401 - a fixture
    network_fixture,  # noqa: F401 - a fixture
    owner,
    shown,
)

pytestmark = MARKS


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are private."""
    folder = Path("/run") / f"banger-test-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def activated(shared: Path) -> Iterator[Activated]:
    found = Activated(shared)
    yield found
    assert found.stop() == 0


def test_a_users_tap_is_that_users(activated: Activated, shared: Path, install: str) -> None:
    # Some machines close /dev/net/tun to users; what is tested is the tap's own guard.
    node = shared / "tun"
    os.mknod(node, stat.S_IFCHR | 0o666, os.stat("/dev/net/tun").st_rdev)
    node.chmod(0o666)

    def make() -> str:
        asked = Network(open_helper(activated.path), install)
        asked.bridge()
        return asked.tap()

    def attached() -> str:
        fd = os.open(node, os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        return "attached"

    name = as_user(4321, make)
    assert name == owner(install, LinkKind.TAP, "web", uid=4321).interface
    assert as_user(4321, attached) == "attached"
    assert "Operation not permitted" in as_user(4322, attached)
    assert read_links(install, uid=4321).taps["demo", "web"].owner == 4321
    assert read_links(install, uid=4322).taps == {}
    assert "uid=4321" in activated.log.read_text()


def test_users_do_not_reach_each_others_links(activated: Activated, install: str) -> None:
    def take(cidr: str) -> str:
        return Network(open_helper(activated.path), install).bridge(cidr)

    mine = as_user(4321, lambda: take(CIDR))
    before = shown()
    assert as_user(4322, lambda: Network(open_helper(activated.path), install).no_bridge()) == "False"
    assert "cidr-taken" in as_user(4322, lambda: _code(lambda: take(CIDR)))
    assert shown() == before
    other = as_user(4322, lambda: take("172.30.8.0/24"))
    assert {mine, other} == names()
    assert mine != other


def _code(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except BangerError as error:
        return error.cause


def test_two_hundred_stalled_peers_keep_nobody_out(activated: Activated, install: str) -> None:
    def stall() -> str:
        stalled = [socket.socket(socket.AF_UNIX) for _ in range(200)]
        for connection in stalled:
            connection.connect(str(activated.path))
            try:
                connection.send(b"\0")  # a frame that does not go on
            except OSError:
                pass  # turned away already
        said.send(b"stalled")
        said.recv(1)
        # The frames have had their time: the same user is served again.
        answers = [connection.recv(4096) for connection in stalled]
        assert all(b"timed-out" in answer or b"too-many-connections" in answer for answer in answers)
        return Network(open_helper(activated.path), install).bridge("172.30.9.0/24")

    ours, said = socket.socketpair()
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(as_user(4321, stall)))
    thread.start()
    assert ours.recv(9) == b"stalled"
    mine = as_user(4322, lambda: Network(open_helper(activated.path), install).bridge())
    assert mine == owner(install, LinkKind.BRIDGE, "lab", uid=4322).interface
    ours.send(b".")
    thread.join()
    assert answers == [owner(install, LinkKind.BRIDGE, "lab", uid=4321).interface]
    assert names() == {mine, *answers}


def test_a_hundred_equal_requests_at_once_make_one_thing(activated: Activated, install: str) -> None:
    """From more users than may be connected at once, each with more than its share: whoever is turned away asks again."""

    def make() -> str:
        def ask(_number: int) -> tuple[str, str]:
            while True:
                try:
                    with open_helper(activated.path) as client:
                        asked = Network(client, install)
                        return asked.bridge(), asked.tap()
                except BangerError as error:
                    assert "too-many" in error.cause or "broke" in error.cause, error.cause

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(100)))
        return f"{len(answers)} {' '.join(sorted({name for answer in answers for name in answer}))}"

    bridge_name = owner(install, LinkKind.BRIDGE, "lab", uid=4321).interface
    tap_name = owner(install, LinkKind.TAP, "web", uid=4321).interface
    assert as_user(4321, make) == f"100 {bridge_name} {tap_name}"
    assert names() == {bridge_name, tap_name}
    audit = activated.log.read_text()
    assert audit.count('outcome="changed"') == 2


def test_a_socket_passed_on_to_another_user(activated: Activated, install: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(activated.path))

        def use() -> object:
            class Passed:
                socket = connection

                def close(self) -> None: ...

            client = HelperClient(Passed)
            return client.delete_tap(install=install, environment="demo", vm="web")

        assert as_user(4321, use) == f"Refusal: {Code.BAD_IDENTITY}"
    assert as_user(65534, lambda: _code(lambda: Network(open_helper(activated.path), install).no_tap())).endswith(
        f"({Code.BAD_IDENTITY})"
    )
