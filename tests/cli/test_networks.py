"""network list, network show and vm ports: what they ask for, and what they make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reconciler.cli import guestports, resources
from reconciler.lib import run as commands
from reconciler.lib.run import Completed
from reconciler.model.nouns import Noun
from reconciler.model.status import Condition, ConditionType, ObjectStatus, State
from tests.cli.conftest import SPEC, Run
from tests.fakes.service import FakeService, vm_status

PORT = {"hostAddress": "", "hostPort": 8080, "protocol": "tcp", "guestPort": 80}
LOCAL = {"hostAddress": "127.0.0.1", "hostPort": 5353, "protocol": "udp", "guestPort": 53}


def lab(environment: str = "demo", **more: Any) -> ObjectStatus:
    details = {
        "interface": "bgb-0123456789",
        "cidr": "172.30.7.0/24",
        "cidr6": "fd00:30:7::/64",
        "mtu": 1500,
        "nat": True,
        "dns": True,
        "isolated": False,
        "egress": None,
        "rules": "intact",
        "vms": [{"name": "web", "address": "172.30.7.2", "address6": "fd00:30:7::2"}],
        "ports": [{"vm": "web", **PORT}, {"vm": "web", **LOCAL}],
        **more,
    }
    return ObjectStatus(
        kind=Noun.NETWORK,
        name="lab",
        environment=environment,
        state=State.PRESENT,
        ready=True,
        address="172.30.7.1",
        conditions=(Condition(type=ConditionType.DRIFTED, status=False, reason="RulesInPlace"),),
        details=details,
    )


def test_the_list_is_a_table(run: Run, service: FakeService) -> None:
    missing = ObjectStatus(kind=Noun.NETWORK, name="dmz", environment="demo", state=State.MISSING, ready=False)
    service.objects = [lab(egress=["10.0.0.0/8"]), missing, vm_status()]
    assert run("network", "list").stdout == (
        "NAME  ENVIRONMENT  STATE    CIDR           CIDR6           BRIDGE          NAT  DNS  ISOLATED  EGRESS  RULES   VMS  PORTS\n"
        "lab   demo         present  172.30.7.0/24  fd00:30:7::/64  bgb-0123456789  yes  yes  no        1 rule  intact  1    2\n"
        "dmz   demo         missing  -                              -               -    -    -         -       -       0    0\n"
    )


def test_json_is_the_documented_listing_and_yaml_the_same(run: Run, service: FakeService) -> None:
    service.objects = [lab()]
    for command in (["network", "list"], ["network", "show", "lab"]):
        found = json.loads(run(*command, "-o", "json").stdout)
        jsonschema.validate(found, json.loads(resources.schema("status")))
        assert found["items"] == [lab().to_json()]
        assert yaml.safe_load(run(*command, "-o", "yaml").stdout) == found
        assert run(*command, "-o", "name").stdout == "network/demo/lab\n"


def test_nothing_is_a_word_on_stderr(run: Run, service: FakeService) -> None:
    service.objects = []
    assert run("network", "list").stderr == "no networks\n"
    assert json.loads(run("network", "list", "-o", "json").stdout)["items"] == []


def test_the_file_says_which_environment(run: Run, service: FakeService) -> None:
    Path("banger.yaml").write_text(SPEC)
    service.objects = [lab(), lab("other")]
    run("network", "list")
    run("network", "list", "--all")
    run("network", "show", "lab")
    run("network", "show", "other/lab")
    assert [call[1] for call in service.calls] == ["demo", None, "demo", "other"]


def test_one_network_with_its_vms(run: Run, service: FakeService) -> None:
    service.objects = [lab(egress=[])]
    assert run("network", "show", "network/lab").stdout == (
        "network   demo/lab\n"
        "state     present\n"
        "bridge    bgb-0123456789\n"
        "cidr      172.30.7.0/24\n"
        "cidr6     fd00:30:7::/64\n"
        "gateway   172.30.7.1\n"
        "mtu       1500\n"
        "nat       yes\n"
        "dns       yes\n"
        "isolated  no\n"
        "egress    nowhere\n"
        "rules     intact\n"
        "\n"
        "VM   ADDRESS     ADDRESS6      PUBLISHED\n"
        "web  172.30.7.2  fd00:30:7::2  *:8080→80 127.0.0.1:5353→53/udp\n"
    )


def test_a_network_that_is_not_there_is_named_with_those_that_are(run: Run, service: FakeService) -> None:
    service.objects = [lab(), lab("other")]
    result = run("network", "show", "lap")
    assert result.exit_code == 2 and "there is no network lap" in result.stderr and "lab" in result.stderr
    result = run("network", "show", "lab")
    assert result.exit_code == 2 and "demo/lab or other/lab" in result.stderr


# What Linux 6.1 printed for sshd, a resolver, a web server bound to loopback, one on a v4-mapped address, a connection.
TABLES = """\
==> /proc/net/tcp <==
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0
   1: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0 0 10 0
   2: 02071EAC:0016 01071EAC:D431 01 00000000:00000000 02:0009A8A7 00000000     0        0 12347 2 0 20 4 31 10 -1

==> /proc/net/tcp6 <==
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 3000 garbage

==> /proc/net/udp <==
  sl  local_address rem_address   st tx_queue rx_queue
  100: 3500007F:0035 00000000:0000 07 00000000:00000000
  101: 00000000:0035 08080808:0035 01 00000000:00000000

==> /proc/net/udp6 <==
  sl  local_address                         remote_address                        st tx_queue rx_queue
  102: 000000FD000000000000000001000000:0222 00000000000000000000000000000000:0000 07 00000000:00000000
"""


def test_the_kernel_s_tables_are_read() -> None:
    assert [(protocol, port, str(address)) for protocol, port, address in guestports.parse(TABLES)] == [
        ("tcp", 22, "0.0.0.0"),
        ("tcp", 80, "127.0.0.1"),
        ("tcp", 22, "::"),
        ("tcp", 8080, "127.0.0.1"),
        ("udp", 53, "127.0.0.53"),
        ("udp", 546, "fd00::1"),
    ]


@pytest.mark.parametrize(
    "text", ["", "nonsense", "==> /proc/net/tcp <==", "==> /proc/net/raw <==\n 0: 00000000:0001 x 07"]
)
def test_what_is_no_table_holds_nothing(text: str) -> None:
    assert list(guestports.parse(text)) == []


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guest prints, and how its command ends; `asked` is what was run."""
    state: dict[str, Any] = {"text": TABLES, "code": 0}

    def run(argv: list[str], **_: object) -> Completed:
        state["asked"] = argv
        return Completed(tuple(argv), state["code"], state["text"].encode(), b"no route to host")

    monkeypatch.setattr(commands, "run", run)
    return state


def test_what_listens_beside_what_is_published(run: Run, service: FakeService, guest: dict[str, Any]) -> None:
    other = {**PORT, "hostPort": 9000, "guestPort": 9000}
    service.objects = [vm_status("web", pid=7, ports=[PORT, LOCAL, other], forwards={"22": 40022})]
    assert run("vm", "ports", "web").stdout == (
        "PORT      LISTENS ON  PUBLISHED        NOTE\n"
        "22/tcp    0.0.0.0 ::  127.0.0.1:40022\n"
        "53/udp    127.0.0.53  127.0.0.1:5353   listens on the guest's loopback only, which publishing does not reach\n"
        "80/tcp    127.0.0.1   *:8080           listens on the guest's loopback only, which publishing does not reach\n"
        "546/udp   fd00::1     -\n"
        "8080/tcp  127.0.0.1   -\n"
        "9000/tcp  -           *:9000           nothing listens there\n"
    )
    assert guest["asked"][-5:] == ["+1", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"]
    found = json.loads(run("vm", "ports", "web", "-o", "json").stdout)["items"]
    assert found[2] == {
        "kind": "port",
        "environment": "demo",
        "vm": "web",
        "protocol": "tcp",
        "port": 80,
        "addresses": ["127.0.0.1"],
        "published": [{"address": "", "port": 8080}],
    }
    assert run("vm", "ports", "web", "-o", "name").stdout.splitlines()[0] == "22/tcp"


def test_a_guest_without_ipv6_is_no_failure(run: Run, service: FakeService, guest: dict[str, Any]) -> None:
    service.objects = [vm_status("web", pid=7)]
    guest |= {"code": 1, "text": TABLES.partition("==> /proc/net/tcp6")[0]}
    assert run("vm", "ports", "web").exit_code == 0
    guest |= {"code": 255, "text": ""}
    result = run("vm", "ports", "web")
    assert result.exit_code == 1 and "no route to host" in result.stderr


def test_of_a_vm_that_does_not_run_the_published_ports_are_shown(run: Run, service: FakeService) -> None:
    service.objects = [vm_status("web", state=State.STOPPED, pid=None, ports=[PORT])]
    result = run("vm", "ports", "web")
    assert result.exit_code == 0 and "does not run" in result.stderr
    assert result.stdout.splitlines()[1].split() == ["80/tcp", "-", "*:8080"]
    service.objects = [vm_status("web", pid=None)]
    result = run("vm", "ports", "web")
    assert result.stdout == "" and "nothing of it is published" in result.stderr
