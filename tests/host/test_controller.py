"""The controller as a process, with real guests: the host follows the file and stays there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.host.controlling import controller, until
from tests.host.home import Home, bare

pytestmark = pytest.mark.host


def settled(home: Home) -> bool:
    """Whether the controller has nothing to do, and has seen the present generation."""
    items = home.items()
    own = items.get(f"environment/{home.environment}", {})
    busy = [c for item in items.values() for c in item["conditions"] if c["type"] == "Progressing"]
    return bool(own) and own["generation"] == own["observedGeneration"] and not busy


def running(home: Home) -> int:
    """How many VMs run; none that is just being started or stopped is among them."""
    return len(home.vmms()) if settled(home) else -1


def test_the_host_follows_the_file_and_stays_there(home: Home, subnet: Callable[[], str]) -> None:
    cidr = subnet()
    home.write({"a": {"image": "small", "network": "lab"}}, networks={"lab": {"cidr": cidr}})
    with controller(home) as first:
        until(lambda: home.items().get("vm/a", {}).get("ready") is True, "vm a is ready")
        assert home.exec("a", "hostname") == "a"
        (pid,) = home.vmms()

        # An edit: the second VM comes, the first one is not touched.
        home.write({"a": {"image": "small", "network": "lab"}, "b": bare()}, networks={"lab": {"cidr": cidr}})
        until(lambda: running(home) == 2, "vm b runs")
        assert pid in home.vmms()

        # Losses: a VMM, and a bridge with what was on it.
        (other,) = set(home.vmms()) - {pid}
        os.kill(other, signal.SIGKILL)
        until(lambda: other not in home.vmms() and running(home) == 2, "vm b is back")
        bridge = next(name for name, alias in home.links().items() if ":net/" in alias or "network" in alias)
        subprocess.run(["ip", "link", "del", bridge], check=True)
        until(lambda: bridge in home.links(), "the bridge is back")
        until(lambda: home.items()["vm/a"]["ready"], "vm a is ready again")
        until(lambda: settled(home), "everything is settled")

        # Nothing is left to do, says the plan as well; the command line asked the controller all the time.
        assert home.planned() == []
        before = home.vmms()
        assert first.end() == 0
    assert home.vmms() == before
    with controller(home):
        until(lambda: settled(home), "a new controller has looked")
        assert home.vmms() == before
        events = json.loads(home.run("events", "-o", "json", "--after", "0").stdout)["items"]
        assert {"Edited", "Ready"} <= {event["reason"] for event in events}
        ids = [event["id"] for event in events]
        assert ids == sorted(ids)


def test_a_broken_file_changes_nothing_and_says_where(home: Home) -> None:
    home.write({"a": bare(), "b": bare()})
    good = home.file.read_text()
    with controller(home):
        until(lambda: running(home) == 2, "both run")
        before = home.vmms()
        home.file.write_text(good.replace("network: none", "netwrok: none", 1))

        def told() -> bool:
            own = home.items()[f"environment/{home.environment}"]
            return own["ready"] is False and f"{home.file}:" in own["conditions"][0]["message"]

        until(told, "the problem is told with its place")
        home.file.unlink()
        until(lambda: "is gone" in json.dumps(home.items()[f"environment/{home.environment}"]), "a missing file")
        assert home.vmms() == before
        home.file.write_text(good)
        until(lambda: home.items()[f"environment/{home.environment}"]["ready"], "the file is good again")
        assert home.vmms() == before


def test_mass_deletion_waits_for_its_approval(home: Home) -> None:
    home.write({"a": bare(), "b": bare(), "c": bare()})
    with controller(home):
        until(lambda: running(home) == 3, "all run")
        before = home.vmms()
        home.write({"a": bare(), "b": bare()})

        def held() -> dict[str, str]:
            conditions = home.items().get("vm/c", {}).get("conditions", [])
            return next((c for c in conditions if c["type"] == "Held"), {})

        until(lambda: bool(held()), "the removal is held")
        assert home.vmms() == before
        message = held()["message"]
        digest = message.split("banger approve ")[1].split()[0].strip("`")
        assert home.run("approve", "0123456789ab", check=False).returncode == 2
        assert home.vmms() == before
        home.run("approve", digest)
        until(lambda: running(home) == 2, "the removal goes through")
        assert set(home.vmms()) < set(before)
        assert "vm/c" not in home.items()


def test_one_controller_for_each_state_directory(home: Home) -> None:
    home.write({"a": bare()})
    with controller(home) as first:
        second = home.run("controller", check=False, timeout=30)
        assert second.returncode == 1
        assert f"process {first.process.pid} " in second.stderr


def test_paused_means_left_alone(home: Home) -> None:
    home.write({"a": bare(), "b": bare()})
    with controller(home):
        until(lambda: running(home) == 2, "both run")
        home.run("pause", "a")
        items = home.items()
        pids = {name: items[f"vm/{name}"]["pid"] for name in "ab"}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: home.items()["vm/b"]["pid"] not in (None, pids["b"]), "b is back")
        assert home.items()["vm/a"]["pid"] is None
        home.run("resume", "a")
        until(lambda: home.items()["vm/a"]["pid"] is not None, "a is back")


def test_verbs_go_through_the_controller_and_last(home: Home) -> None:
    home.write({"a": bare()})
    with controller(home) as running_controller:
        until(lambda: running(home) == 1, "it runs")
        home.run("vm", "kill", "a")
        assert home.vmms() == {}
        home.run("wait", "--for", "stopped", "a", "--timeout", "5s")
        until(lambda: settled(home), "the controller leaves it so")
        assert home.vmms() == {}
        home.run("vm", "start", "a")
        assert running(home) == 1
        # One operation id from the command to the log.
        operations = {line["operation"] for line in running_controller.lines() if line.get("operation")}
        assert operations
        home.run("apply", "--yes")
        refused = home.run("delete", home.environment, "--yes", check=False)
        assert refused.returncode == 2
        assert str(home.file) in refused.stderr


def test_restarts_of_the_controller_restart_no_vm(home: Home) -> None:
    home.write({"a": bare(), "b": bare()})
    with controller(home):
        until(lambda: running(home) == 2, "both run")
    before = home.vmms()
    for number in range(int(os.environ.get("BANGER_RESTARTS", "5"))):
        with controller(home) as again:
            until(lambda: settled(home), f"restart {number} has looked")
            assert home.vmms() == before
            again.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
    assert home.vmms() == before
