"""The driver: what the helper's answers become, the ways to a helper, and what counts as ours."""

from __future__ import annotations

import socket
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from reconciler.drivers.network import bridge, connect, probe
from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient, HelperLostError
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Code, Refusal
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.observed_links import Links, ObservedBridge, ObservedTap

INSTALL = "0123456789ab"
BRIDGE = LinkOwner(INSTALL, 1000, "demo", LinkKind.BRIDGE, "lab")
TAP = LinkOwner(INSTALL, 1000, "demo", LinkKind.TAP, "web")


@pytest.mark.parametrize("code", Code)
def test_refusals_become_errors(code: Code) -> None:
    with pytest.raises(BangerError) as caught, explained("bridge of network lab"):
        raise Refusal(code, "the reason")
    assert caught.value.cause == f"bridge of network lab: the reason ({code})"
    assert caught.value.error_class.worth_retrying is code.transient


def test_a_lost_helper_is_worth_a_retry() -> None:
    with pytest.raises(BangerError) as caught, explained("tap of vm web"):
        raise HelperLostError("the connection to the helper broke: it ended")
    assert caught.value.error_class is ErrorClass.RETRYABLE


def test_a_helper_that_cannot_be_dialled_says_so() -> None:
    def dial() -> connect._Dialled:
        return connect._connect(Path("/nonexistent/helper.sock"))

    with pytest.raises(BangerError, match="network needs the root helper"):
        bridge.delete(HelperClient(dial), install=INSTALL, environment="demo", network="lab")


def test_no_helper(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="network needs the root helper") as caught:
        connect.open_helper(tmp_path / "helper.sock", uid=1000)
    hint = caught.value.hint or ""
    assert all(way in hint for way in ("sudo", "systemctl enable --now banger-helper.socket", "network: user"))


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "helper.sock"))
    with pytest.raises(BangerError, match="nobody listens") as caught:
        connect.open_helper(tmp_path / "helper.sock", uid=1000)
    assert caught.value.error_class is ErrorClass.RETRYABLE


def test_a_socket_that_is_closed_to_the_user(tmp_path: Path) -> None:
    error = connect._unreachable(tmp_path, PermissionError(13, "Permission denied"))
    assert "usermod -aG banger" in (error.hint or "")


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "state" / "helper.log"
    connect._rotate(log)
    with log.open("wb") as file:
        file.truncate(connect._MAX_LOG + 1)
    connect._rotate(log)
    assert [path.name for path in log.parent.iterdir()] == ["helper.log.1"]


class Message(dict[str, object]):
    """A netlink message as pyroute2 gives it: header fields as items, attributes by name."""

    def __init__(self, *, index: int, flags: int = 1, prefixlen: int = 0, **attributes: object) -> None:
        super().__init__(index=index, flags=flags, prefixlen=prefixlen)
        self.attributes = {"IFLA_MTU": 1500, **attributes}

    def get_attr(self, name: str) -> object:
        return self.attributes.get(name)

    def get_nested(self, *path: str) -> object:
        return self.attributes.get(path[-1])


def links(*messages: Message, addresses: tuple[Message, ...] = ()) -> Links:
    return probe._interpret(list(messages), list(addresses), INSTALL, 1000)


def bridge_message(**more: object) -> Message:
    attributes = {"IFLA_IFNAME": BRIDGE.interface, "IFLA_IFALIAS": BRIDGE.alias, "IFLA_INFO_KIND": "bridge", **more}
    return Message(index=2, **attributes)  # type: ignore[arg-type]


def tap_message(**more: object) -> Message:
    attributes = {"IFLA_IFNAME": TAP.interface, "IFLA_IFALIAS": TAP.alias, "IFLA_INFO_KIND": "tun", **more}
    return Message(index=3, **attributes)  # type: ignore[arg-type]


def test_ours_are_read() -> None:
    found = links(
        bridge_message(),
        tap_message(IFLA_MASTER=2, IFLA_CARRIER=1, IFLA_TUN_OWNER=1000),
        addresses=(Message(index=2, prefixlen=24, IFA_LOCAL="172.30.7.1"),),
    )
    address = IPv4Interface("172.30.7.1/24")
    expected = ObservedBridge(name=BRIDGE.interface, mtu=1500, up=True, addresses=(address,), ports=(TAP.interface,))
    assert found.bridges == {("demo", "lab"): expected}
    assert found.taps == {
        ("demo", "web"): ObservedTap(
            name=TAP.interface, mtu=1500, up=True, carrier=True, master=BRIDGE.interface, owner=1000
        )
    }
    assert expected.cidr == IPv4Network("172.30.7.0/24")


@pytest.mark.parametrize(
    "attributes",
    [
        {"IFLA_IFALIAS": None},
        {"IFLA_IFALIAS": "banger:x"},
        {"IFLA_IFALIAS": BRIDGE.alias.replace("1000", "1001")},
        {"IFLA_IFALIAS": BRIDGE.alias.replace(INSTALL, "ba9876543210")},
        {"IFLA_IFNAME": "br0"},
        {"IFLA_INFO_KIND": "dummy"},
    ],
)
def test_foreign_links_are_not(attributes: dict[str, object]) -> None:
    assert links(bridge_message(**attributes)) == Links()


@pytest.mark.parametrize("addresses", [[], ["172.30.7.2"], ["172.30.7.1", "172.30.7.2"]])
def test_a_bridge_with_other_addresses_has_no_cidr(addresses: list[str]) -> None:
    held = tuple(Message(index=2, prefixlen=24, IFA_LOCAL=address) for address in addresses)
    assert links(bridge_message(), addresses=held).bridges["demo", "lab"].cidr is None


def test_a_tap_without_owner() -> None:
    assert links(tap_message(IFLA_TUN_OWNER=0xFFFFFFFF)).taps["demo", "web"].owner is None


def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[list[object], list[object]]:
        raise OSError(105, "No buffer space available")

    monkeypatch.setattr(probe, "_dump", fail)
    with pytest.raises(BangerError) as caught:
        probe.read_links(INSTALL)
    assert caught.value.error_class is ErrorClass.RETRYABLE
