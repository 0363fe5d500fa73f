"""The rules of networks as objects: replaced as a whole, their drift seen, what is others' left alone and put back."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from reconciler.drivers.network.connect import open_helper
from reconciler.helper.names import LinkKind
from reconciler.helper.protocol import Code, Refusal
from tests.host.lab import (
    ADDRESSES,
    Lab,
    foreign,
    lab_fixture,  # noqa: F401 - a fixture
)
from tests.host.netns import (
    CIDR,
    MARKS,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    namespace_fixture,  # noqa: F401 - a fixture
    owner,
)
from tests.host.spaces import Outside

pytestmark = MARKS

DIGEST = "0" * 16
PORT = ("", 8080, "tcp", "web", 80)


def nft(text: str) -> str:
    return subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=True).stdout


def tables() -> set[str]:
    return set(
        subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines()
    )


def ours(lab: Lab) -> list[str]:
    """What the tables of ours contain, in nft's words."""
    names = [("inet", lab.bridge), ("bridge", lab.bridge), ("inet", "banger-forward")]
    return [lab.host.run("nft", "list", "table", *name) for name in names]


def sysctls(lab: Lab) -> dict[str, str]:
    """Everything that forwarding depends on, of what is not ours."""
    listed = lab.host.run(
        "sh",
        "-c",
        "grep -H . /proc/sys/net/ipv*/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv4/conf/*/route_localnet",
    )
    found = dict(line.rsplit(":", 1) for line in listed.splitlines())
    return {name: value for name, value in found.items() if "/bg" not in name}


def refusal(call: object) -> Code:
    with pytest.raises(Refusal) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


def test_the_same_rules_again_change_nothing(lab: Lab) -> None:
    assert lab.rules()
    with subprocess.Popen(["nft", "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        until_heard(monitor.stdout)
        assert not lab.rules()
        assert lab.shown() == (DIGEST, True)
        nft("add table ip mark-end")
        heard = []
        while "mark-end" not in (line := monitor.stdout.readline()):
            heard.append(line)
        monitor.kill()
    assert not [line for line in heard if "bgb-" in line or "banger" in line]


def until_heard(stream: object) -> None:
    """Returns once the monitor listens: it shows one of the marks that are made until then."""
    ready = threading.Event()

    def mark() -> None:
        while not ready.is_set():
            nft("add table ip mark-start; delete table ip mark-start")

    thread = threading.Thread(target=mark)
    thread.start()
    assert "mark" in stream.readline()  # type: ignore[attr-defined]
    ready.set()
    thread.join()


DRIFTS = {
    "all rules flushed": "flush ruleset",
    "the inet table deleted": "delete table inet BRIDGE",
    "the bridge table deleted": "delete table bridge BRIDGE",
    "a chain flushed": "flush chain bridge BRIDGE senders",
    "a rule added": "insert rule inet BRIDGE forward accept",
    "an element added": 'add element bridge BRIDGE taps { "veth0" }',
    "an element deleted": "delete element inet BRIDGE any-ip { tcp . 8080 }",
    "the guard of forwarding flushed": "flush chain inet banger-forward forward",
    "the record of forwarding deleted": "delete table inet banger-forward",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_seen_and_repaired(lab: Lab, drift: str) -> None:
    lab.rules(ports=[PORT])
    before = ours(lab)
    generation = lab.client.show_rules(install=lab.install).generation
    nft(DRIFTS[drift].replace("BRIDGE", lab.bridge))
    assert lab.client.watch_rules(install=lab.install, generation=generation) != generation
    shown = lab.client.show_rules(install=lab.install).rules
    assert shown.get(("demo", "lab"), (DIGEST, False))[1] is False
    assert lab.rules(ports=[PORT])
    assert lab.shown() == (DIGEST, True)
    if drift != "all rules flushed":
        assert foreign() in lab.host.run("nft", "list", "ruleset")
    assert ours(lab) == before
    assert lab.outside.reaches(Outside.HOST, 8080, lab.web, "0.0.0.0", 80) == Outside.ADDRESS


@pytest.mark.parametrize(
    "name",
    [
        "ipv4/conf/BRIDGE/forwarding",
        "ipv4/conf/BRIDGE/route_localnet",
        "ipv4/conf/up0/forwarding",
        "ipv6/conf/all/forwarding",
    ],
)
def test_a_lost_sysctl_is_seen_and_repaired(lab: Lab, name: str) -> None:
    lab.rules(ports=[PORT])
    path = f"/proc/sys/net/{name.replace('BRIDGE', lab.bridge)}"
    lab.host.run("sh", "-c", f"echo 0 > {path}")
    assert lab.shown() == (DIGEST, False)
    assert lab.rules(ports=[PORT])
    assert lab.shown() == (DIGEST, True)


def test_a_watch_waits_until_something_happens(lab: Lab, tmp_path: Path) -> None:
    lab.rules()
    generation = lab.client.show_rules(install=lab.install).generation
    answers: list[int] = []
    with open_helper(uid=0, log=tmp_path / "watch.log") as watching:
        watching.open()
        thread = threading.Thread(
            target=lambda: answers.append(watching.watch_rules(install=lab.install, generation=generation))
        )
        thread.start()
        # Meanwhile others are served: a watch holds no lock.
        assert not lab.rules()
        assert answers == []
        nft("add table ip more")
        thread.join(20)
        assert not thread.is_alive()
    assert answers != [generation]
    assert len(answers) == 1


def test_what_is_others_stays_to_the_byte(lab: Lab) -> None:
    before, links = foreign(), sysctls(lab)
    lab.rules(ports=[PORT])
    lab.rules(digest="1" * 16, isolated=True)
    assert sysctls(lab) != links
    assert lab.client.delete_bridge(**lab.where)
    assert foreign() == before
    assert tables() == {"table ip docker", "table inet mine"}
    assert sysctls(lab) == links


def test_forwarding_stays_until_the_last_network_that_needs_it(lab: Lab) -> None:
    before = sysctls(lab)
    second = {**lab.where, "network": "second"}
    lab.client.ensure_bridge(**second, cidr="172.30.8.0/24", mtu=1500)
    lab.rules()
    assert sysctls(lab)["/proc/sys/net/ipv4/conf/all/forwarding"] == "0"
    assert sysctls(lab)["/proc/sys/net/ipv4/conf/up0/forwarding"] == "1"
    lab.client.ensure_rules(**second, digest=DIGEST, cidr="172.30.8.0/24", cidr6="", nat=True, isolated=False, dns=True, restricted=False, egress=[], vms=[], ports=[])  # fmt: skip
    lab.client.delete_bridge(**lab.where)
    # The second network has no IPv6.
    still = {name: value for name, value in before.items() if name != "/proc/sys/net/ipv4/conf/up0/forwarding"}
    assert sysctls(lab) == {**still, "/proc/sys/net/ipv4/conf/up0/forwarding": "1"}
    lab.client.ensure_rules(**second, digest="1" * 16, cidr="172.30.8.0/24", cidr6="", nat=False, isolated=False, dns=True, restricted=False, egress=[], vms=[], ports=[])  # fmt: skip
    assert sysctls(lab) == before
    lab.client.delete_bridge(**second)


def test_the_host_does_not_become_a_router(lab: Lab) -> None:
    """What comes in by an interface that we switched on goes to our networks, or nowhere."""
    lab.host.ip("link add other0 type bridge")
    lab.host.ip("addr add 198.18.0.1/24 dev other0")
    lab.host.ip("link set other0 up")
    lab.rules()
    other = lab.host.packets("other0")
    lab.outside.ip("route add 198.18.0.0/24 via 192.0.2.1")
    assert lab.outside.reaches("198.18.0.9", 80, lab.outside, "0.0.0.0", 81) is None
    other.settimeout(0.1)
    with other, pytest.raises(TimeoutError):
        while True:
            assert b"\x08\x06" not in other.recv(65536)[12:14]  # it would ask for 198.18.0.9 by ARP


def test_forwarding_that_somebody_else_turned_on_is_theirs(lab: Lab) -> None:
    lab.rules()
    lab.host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    lab.rules(digest="1" * 16)
    assert "iifname @v4" not in lab.host.run("nft", "list", "ruleset")
    lab.client.delete_bridge(**lab.where)
    assert sysctls(lab)["/proc/sys/net/ipv4/conf/up0/forwarding"] == "1"


def test_rules_that_outlive_their_bridge_go_with_the_next_ones(lab: Lab) -> None:
    """They would drop what the next network of the same addresses is sent, and keep its ports."""
    lab.rules(ports=[PORT])
    subprocess.run(["ip", "link", "del", lab.bridge], check=True)
    assert lab.shown()[0] == DIGEST  # looking sweeps nothing
    again = {**lab.where, "network": "again"}
    bridge = lab.client.ensure_bridge(**again, cidr=CIDR, mtu=1500)
    lab.where = again
    lab.rules(cidr6="", ports=[PORT])
    left = {line.split()[2] for line in tables() if line.split()[2].startswith("bgb-")}
    assert left == {bridge}
    assert {line for line in foreign().splitlines() if line.startswith("table")} == {
        "table ip docker {",
        "table inet mine {",
    }


def test_rules_of_other_users_are_out_of_reach(lab: Lab) -> None:
    lab.rules()
    theirs = owner(lab.install, LinkKind.BRIDGE, "lab", uid=4321)
    nft(f'table inet {theirs.interface} {{\ncomment "{theirs.alias}"\n}}')
    assert set(lab.client.show_rules(install=lab.install).rules) == {("demo", "lab")}
    assert lab.client.show_rules(install="f" * 12).rules == {}


def test_a_foreign_table_of_the_same_name_is_named_and_left(lab: Lab) -> None:
    nft(f"add table inet {lab.bridge}")
    before = lab.host.run("nft", "list", "ruleset")
    assert refusal(lab.rules) is Code.FOREIGN_TABLE
    assert refusal(lambda: lab.client.delete_bridge(**lab.where)) is Code.FOREIGN_TABLE
    assert lab.host.run("nft", "list", "ruleset") == before


def test_a_port_is_taken_from_nobody(lab: Lab) -> None:
    with lab.host.listen("127.0.0.1", 8080):
        assert refusal(lambda: lab.rules(ports=[PORT])) is Code.PORT_TAKEN
        assert lab.rules(ports=[(Outside.HOST, 8080, "tcp", "web", 80), ("", 8080, "udp", "web", 80)])
    assert lab.rules(ports=[PORT], digest="1" * 16)
    second = {**lab.where, "network": "second"}
    lab.client.ensure_bridge(**second, cidr="172.30.8.0/24", mtu=1500)

    def publish(*port: object) -> bool:
        return lab.client.ensure_rules(**second, digest=DIGEST, cidr="172.30.8.0/24", cidr6="", nat=True, isolated=False, dns=True, restricted=False, egress=[], vms=[("x", "172.30.8.5")], ports=[port])  # type: ignore[list-item] # fmt: skip

    assert refusal(lambda: publish("", 8080, "tcp", "x", 80)) is Code.PORT_TAKEN
    assert refusal(lambda: publish("127.0.0.1", 8080, "tcp", "x", 80)) is Code.PORT_TAKEN
    assert publish("127.0.0.1", 8081, "tcp", "x", 80)


def test_foreign_chains_that_drop_are_named(lab: Lab) -> None:
    lab.rules()
    assert lab.client.show_rules(install=lab.install).blockers == ()
    nft("table ip filter {\nchain FORWARD {\ntype filter hook forward priority 0; policy drop;\n}\n}")
    nft(
        "table inet firewalld {\nchain filter_FORWARD {\ntype filter hook forward priority 10;\nct state established accept\nreject with icmpx type admin-prohibited\n}\n}"
    )
    shown = lab.client.show_rules(install=lab.install)
    assert set(shown.blockers) == {"ip filter FORWARD", "inet firewalld filter_FORWARD"}
    nft('insert rule ip filter FORWARD iifname "bgb-*" accept')
    assert lab.client.show_rules(install=lab.install).blockers == ("inet firewalld filter_FORWARD",)


def test_rules_before_their_bridge_are_too_early(lab: Lab) -> None:
    lab.client.delete_bridge(**lab.where)
    assert refusal(lab.rules) is Code.NO_BRIDGE


def test_dns_sockets_are_the_gateways(lab: Lab) -> None:
    lab.rules(isolated=True)
    udp, tcp = lab.client.dns_sockets(**lab.where)
    with udp, tcp:
        assert (udp.getsockname(), tcp.getsockname()) == (("172.30.7.1", 53),) * 2
        udp.settimeout(10)
        with lab.web.listen(ADDRESSES["web"], 0, 2) as asking:
            asking.sendto(b"?", ("172.30.7.1", 53))
            assert udp.recvfrom(9)[0] == b"?"
        assert refusal(lambda: lab.client.dns_sockets(**lab.where)) is Code.PORT_TAKEN
    for again in lab.client.dns_sockets(**lab.where):
        again.close()


def test_names_are_routed_only_where_resolved_runs(lab: Lab) -> None:
    assert lab.client.route_names(**lab.where) is False
