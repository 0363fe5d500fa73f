"""`banger ps`, `vm show`, `vm stats` and `top`: what a VM is, and what it uses."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import termios
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.commands import seeing
from reconciler.cli.topview import Sort, screen
from reconciler.cli.usage import Meter
from reconciler.cli.vmtables import vm_table
from reconciler.lib.units import human_duration
from reconciler.model.status import ObjectStatus
from tests.cli.conftest import Run
from tests.cli.test_process import start
from tests.fakes import service as fakes
from tests.fakes.service import FakeService, vm_status, vm_usage

PORT = {"hostAddress": "127.0.0.1", "hostPort": 8080, "guestPort": 80, "protocol": "tcp"}
PORT6 = {"hostAddress": "fd00::1", "hostPort": 53, "guestPort": 53, "protocol": "udp"}
DETAILS: dict[str, Any] = {
    "id": "0" * 12,
    "image": "base",
    "kernel": "debian",
    "cpus": 2,
    "memory": 512 << 20,
    "disk": 4 << 30,
    "network": "lab",
    "mac": "02:00:00:00:00:01",
    "pid": 77,
    "ports": [PORT, PORT6],
    "forwards": {"22": 40022},
    "workspace": {"host": "/src", "guest": "/root/repo", "untracked": False},
    "volumes": [{"name": "data", "size": 1 << 30, "mount": "/var/lib/data"}],
    "files": ["/etc/motd"],
    "env": ["APP"],
    "secrets": ["TOKEN"],
    "provision": 1,
    "ttl": 3600.0,
    "protect": True,
    "createdAt": 1000.0,
    "startedAt": 2000.0,
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeing.time, "sleep", lambda seconds: None)


def full(**more: Any) -> ObjectStatus:
    return vm_status(**{**DETAILS, **more})


def test_ps_says_what_a_vm_is_and_where() -> None:
    assert vm_table([full(), full(startedAt=None, ports=[])], now=2000.0 + 3725) == (
        "NAME  ENVIRONMENT  STATE  ADDRESS    IMAGE  CPUS  MEMORY     UPTIME  PORTS\n"
        "dev   demo         \x1b[32mready\x1b[0m  127.0.0.1  base   2     512.0 MiB  1h 2m   "
        "127.0.0.1:8080→80 [fd00::1]:53→53/udp\n"
        "dev   demo         \x1b[32mready\x1b[0m  127.0.0.1  base   2     512.0 MiB  -"
    )


def test_ps_wide_says_more(run: Run, service: FakeService) -> None:
    service.objects = [full()]
    header, row = run("ps", "-o", "wide").stdout.splitlines()
    assert header.split()[-5:] == ["NETWORK", "DISK", "AGE", "WORKSPACE", "PID"]
    assert "lab" in row and "4.0 GiB" in row and "/src → /root/repo" in row and row.endswith("77")
    service.objects = []
    assert run("ps", "-o", "wide").stderr == "no VMs\n"


@pytest.mark.parametrize("command", [("status",), ("vm", "stats"), ("vm", "show", "dev")])
def test_only_ps_is_wide(run: Run, command: tuple[str, ...]) -> None:
    assert run(*command, "-o", "wide").exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3660, "1h 1m"),
        (90000, "1d 1h"),
        (864005, "10d"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_stats_are_a_share_of_the_time_between_two_looks(run: Run, service: FakeService) -> None:
    service.the_usage = [[vm_usage(uptime=100.0, cpu=10.0)], [vm_usage(uptime=102.0, cpu=13.0)]]
    assert run("vm", "stats").stdout == (
        "NAME  ENVIRONMENT  CPU     CPUS  RESIDENT   MEMORY     ALLOCATED  DISK     RECEIVED  SENT  UPTIME\n"
        "dev   demo         150.0%  2     300.0 MiB  512.0 MiB  101.0 MiB  5.0 GiB  2.0 KiB   10 B  1m 42s\n"
    )
    service.measured = 0
    (item,) = json.loads(run("vm", "stats", "-o", "json").stdout)["items"]
    assert item["cpu"] == {"cpus": 2, "seconds": 13.0, "percent": 150.0}
    assert item["disks"][1] == {"name": "data", "allocated": 1 << 20, "size": 1 << 30}
    service.measured = 0
    assert yaml.safe_load(run("vm", "stats", "-o", "yaml").stdout)["items"] == [item]
    assert run("vm", "stats", "-o", "name").stdout == "vm/demo/dev\n"


def test_stats_of_what_does_not_run_and_of_what_was_restarted(run: Run, service: FakeService) -> None:
    service.the_usage = [
        [vm_usage(uptime=100.0, cpu=50.0), vm_usage("off", uptime=None)],
        [vm_usage(uptime=1.0, cpu=0.5), vm_usage("off", uptime=None)],
    ]
    items = {item["name"]: item for item in json.loads(run("vm", "stats", "-o", "json").stdout)["items"]}
    assert items["dev"]["cpu"]["percent"] is None
    assert items["off"]["running"] is False
    assert (items["off"]["memory"], items["off"]["network"]) == (
        {"size": 512 << 20, "resident": None},
        {"received": None, "sent": None},
    )


def test_stats_of_the_named_ones_only(run: Run, service: FakeService) -> None:
    service.objects = [vm_status(), vm_status("web")]
    service.the_usage = [[vm_usage(), vm_usage("web")]]
    assert run("vm", "stats", "-o", "name", "web", "demo/web").stdout == "vm/demo/web\n"
    Path("banger.yaml").write_text("name: lab\n")
    run("vm", "stats")
    assert service.calls[-1] == ("usage", "lab")
    run("vm", "stats", "-A")
    assert service.calls[-1] == ("usage", None)


def test_no_vms_have_no_stats(run: Run, service: FakeService) -> None:
    service.the_usage = [[]]
    result = run("vm", "stats")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no VMs\n")


def test_watched_stats_are_a_line_for_each_vm_and_look(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.the_usage = [[vm_usage(uptime=100.0 + n, cpu=10.0 + n / 2)] for n in range(4)]
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(seeing.time, "sleep", wait)
    result = run("vm", "stats", "-w", "--interval", "5s", "-o", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["cpu"]["percent"] for line in lines] == [50.0, 50.0, 50.0]
    assert (result.exit_code, waits) == (130, [5.0] * 4)


def test_show_has_everything_for_people(run: Run, service: FakeService) -> None:
    happened = fakes.event(1, environment="demo")
    service.objects = [full()]
    service.log = Path("/state/console.log")
    service.happened = [happened]
    text = run("vm", "show", "dev").stdout
    for words in (
        "demo/dev",
        "base",
        "512.0 MiB, 300.0 MiB of the host's in use",
        "received 2.0 KiB, sent 10 B",
        "127.0.0.1:40022→22",
        "/state/console.log",
        "data  /var/lib/data  1.0 MiB      1.0 GiB",
        "/src → /root/repo",
        "/etc/motd",
        "TOKEN",
        "1 step",
        "1h",
    ):
        assert words in text, words
    assert (happened.message in text) is (happened.object == "vm/dev")


def test_show_has_everything_for_programs(run: Run, service: FakeService) -> None:
    service.objects = [full(), vm_status("web")]
    service.log = Path("/state/console.log")
    (item,) = json.loads(run("vm", "show", "dev", "-o", "json").stdout)["items"]
    status = service.objects[0].to_json()
    assert {key: item[key] for key in status} == status
    assert (item["consoleLog"], item["usage"]["memory"]["resident"]) == ("/state/console.log", 300 << 20)
    assert run("vm", "show", "dev", "-o", "name").stdout == "vm/demo/dev\n"


def test_a_vm_of_which_little_is_known_is_shown(run: Run, service: FakeService) -> None:
    service.the_usage = [[]]
    result = run("vm", "show", "dev")
    assert (result.exit_code, "demo/dev" in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("order", "names"), [(Sort.CPU, "cba"), (Sort.MEMORY, "abc"), (Sort.DISK, "abc"), (Sort.NAME, "abc")]
)
def test_the_busiest_comes_first(order: Sort, names: str) -> None:
    first = [vm_usage(name) for name in "abc"]
    second = [vm_usage(name, uptime=101.0, cpu=10.0 + n / 10) for n, name in enumerate("abc")]
    meter = Meter()
    meter.shares(first)
    shown = screen(second, meter.shares(second), [vm_status("a")], order)
    head, foot, _, header, *rows = shown.splitlines()
    assert "3 VMs, 3 running   CPU 30%" in head and f"sorted by {order.name.lower()}" in foot
    assert header.split()[:3] == ["NAME", "ENVIRONMENT", "STATE"]
    assert "".join(row[0] for row in rows) == names


@pytest.mark.parametrize("command", [("top",), ("vm", "stats")])
def test_no_time_is_no_interval(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--interval", "0s")
    assert (result.exit_code, "at least 10ms" in result.stderr) == (2, True)


def test_top_is_for_terminals(run: Run) -> None:
    result = run("top")
    assert (result.exit_code, "banger vm stats -w" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("typed", "number", "code"), [(b"nq", None, 0), (b"", signal.SIGINT, 130), (b"", signal.SIGTERM, 143)]
)
def test_top_gives_the_screen_back(typed: bytes, number: signal.Signals | None, code: int) -> None:
    person, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    child = start("main()", "top", start_new_session=True, env={"COLUMNS": "200", "LINES": "40"}, **ends)
    seen = b""

    def see(words: bytes) -> None:
        nonlocal seen
        while words not in seen:
            assert select.select([person], [], [], 60)[0], seen
            seen += os.read(person, 1 << 16)

    try:
        see(b"sorted by cpu")
        if typed:
            os.write(person, typed[:1])
            see(b"sorted by name")
            os.write(person, typed[1:])
        if number:
            child.send_signal(number)
        see(b"\x1b[?1049l")
        assert child.wait(60) == code
        assert b"\x1b[?1049h" in seen and b"\x1b[?25h" in seen
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(person)
        os.close(terminal)
