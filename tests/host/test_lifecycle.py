"""The promises of an apply, on real VMs: what is created, kept, restarted, refused, trashed and brought back."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.host.home import Home, bare
from tests.host.images import SMALL

pytestmark = pytest.mark.host


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder with its hash and mtime; disks that a running guest writes are left out."""
    found = {}
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix not in (".ext4", ".log"):
            found[str(file)] = (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
    return found


def test_from_nothing_to_ssh_and_a_second_apply_changes_nothing(home: Home) -> None:
    home.write({"dev": {"image": "base", "memory": "512MiB", "volumes": {"data": {"size": "64MiB", "mount": "/data"}}}})
    home.run("apply")
    items = home.items()
    assert all(item["ready"] for item in items.values()), items
    assert items["vm/dev"]["state"] == "ready"

    # The very first connection is verified: the one pinned key, and nothing learned on the way.
    state = home.root / "state" / "vms" / home.environment / "dev"
    pinned = (state / "known_hosts").read_text()
    assert home.exec("dev", "sh", "-c", ". /etc/os-release; echo $ID $VERSION_ID") == "debian 12"
    assert (state / "known_hosts").read_text() == pinned
    for code in (0, 1, 7, 255):
        assert home.run("exec", "dev", "--", "sh", "-c", f"exit {code}", check=False).returncode == code
    assert home.exec("dev", "printf", "%s|", "a b", "$HOME", "'", "*") == "a b|$HOME|'|*|"

    # The guest's clock is the host's: its seconds are as long, and it can sleep without ticking.
    began = time.monotonic()
    home.exec("dev", "sleep", "3")
    assert time.monotonic() - began >= 3
    clock = home.exec("dev", "cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource")
    assert clock in ("tsc", "kvm-clock")

    before = snapshot(home.root / "state")
    assert home.planned() == []
    assert home.run("plan", "--exit-code").returncode == 0
    home.run("apply")
    assert snapshot(home.root / "state") == before

    # A swapped host key is refused by what connects anew; `exec` may have a connection that was verified before.
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ5dGVzLXRoYXQtYXJlLW5vdC10aGUta2V5LW9mLXRoaXMh"
    (state / "known_hosts").write_text(f"{pinned.split()[0]} {other}\n")
    refused = home.run("ssh", "dev", "--", "true", check=False)
    assert refused.returncode == 255
    assert "host key" in refused.stderr.lower()
    (state / "known_hosts").write_text(pinned)


def test_edits_cost_what_the_plan_says(home: Home) -> None:
    dev = {"image": "small", "volumes": {"data": {"size": "64MiB", "mount": "/data"}}}
    home.write({"dev": dev})
    home.run("apply")
    home.exec("dev", "sh", "-c", "echo kept > /data/file; echo kept > /root/file")
    first = home.items()["vm/dev"]

    # Adding a VM creates only it.
    home.write({"dev": dev, "new": bare()})
    assert home.run("plan", "--exit-code", check=False).returncode == 3
    assert {word.split("/")[1] for word in home.planned()} == {"new"}
    home.run("apply")
    assert home.items()["vm/dev"]["pid"] == first["pid"]

    # Memory: a restart of that VM, with its disk.
    bigger = {**dev, "memory": "320MiB"}
    home.write({"dev": bigger, "new": bare()})
    plan = home.plan()
    assert [(s["id"], s["class"]) for s in plan["steps"] if s["action"] == "StopVm"] == [("stop vm/dev", "restart")]
    assert {s["name"] for s in plan["steps"]} == {"dev"}
    new_pid = home.items()["vm/new"]["pid"]
    home.run("apply")
    restarted = home.items()
    assert restarted["vm/dev"]["id"] == first["id"]
    assert restarted["vm/dev"]["pid"] != first["pid"]
    assert restarted["vm/new"]["pid"] == new_pid
    assert int(home.exec("dev", "sed", "-n", "s/MemTotal: *\\([0-9]*\\).*/\\1/p", "/proc/meminfo")) > 256 * 1024
    assert home.exec("dev", "cat", "/data/file", "/root/file").split() == ["kept", "kept"]

    # Its image: refused, and the VM untouched; then recreated, with its volume.
    images = {"base": {"debian": {"suite": "bookworm", "packages": []}, "kernel": "debian"}, "small": SMALL}
    home.write({"dev": {**bigger, "image": "base"}}, images=images)
    held = home.plan()["held"]
    assert [h["object"] for h in held] == ["vm/dev"]
    assert "recreate" in held[0]["reason"]
    refused = home.run("apply", check=False)
    assert refused.returncode == 1
    assert "--allow-recreate" in refused.stderr
    assert home.items()["vm/dev"]["pid"] == restarted["vm/dev"]["pid"]
    home.run("apply", "--allow-recreate")
    recreated = home.items()["vm/dev"]
    assert recreated["id"] != first["id"]
    assert home.exec(
        "dev", "sh", "-c", "cat /data/file; test ! -e /root/file; . /etc/os-release; echo $ID"
    ).split() == [
        "kept",
        "debian",
    ]


def test_removed_is_trashed_restored_and_protected(home: Home) -> None:
    block = {"image": "small", "volumes": {"data": {"size": "64MiB", "mount": "/data"}}}
    home.write({"dev": block, "safe": {**bare(), "protect": True}})
    home.run("apply")
    home.exec("dev", "sh", "-c", "echo precious > /root/file; echo volume > /data/file")
    identity = home.items()["vm/dev"]["id"]

    home.write({})
    done = home.run("apply", check=False)
    assert done.returncode == 1
    assert "protect" in done.stderr
    after = home.items()
    assert "vm/dev" not in after
    assert after["vm/safe"]["state"] == "ready"

    home.run("vm", "restore", "dev")
    assert home.items()["vm/dev"]["id"] == identity
    assert home.exec("dev", "cat", "/root/file", "/data/file").split() == ["precious", "volume"]
    home.write({"dev": block, "safe": {**bare(), "protect": True}})
    assert home.planned() == []

    # A protected VM holds up the deletion of its environment too; unprotected, it goes, and only trash is left.
    refused = home.run("delete", home.environment, "--yes", check=False)
    assert refused.returncode == 1
    assert "protected" in refused.stderr
    home.write({"dev": block, "safe": bare()})
    home.run("apply")
    home.run("delete", home.environment, "--yes")
    assert json.loads(home.run("status", "-o", "json").stdout)["items"] == []
    state = home.root / "state"
    assert sorted(p.name.split(".")[1] for p in (state / "trash").iterdir() if not p.name.startswith(".")) == [
        "dev",
        "safe",
    ]
    left = [p for part in ("vms", "volumes") for p in (state / part).rglob("*") if ".staging" not in p.parts]
    assert left == []
    home.run("vm", "restore", "dev", "--no-wait")
    assert home.items("ps")["vm/dev"]["id"] == identity


def test_power_verbs_and_orderly_stop(home: Home) -> None:
    home.write({"dev": {"image": "small"}})
    home.run("apply")
    running = home.run("image", "commit", "dev", "gold", check=False)
    assert running.returncode == 2 and "banger vm stop dev" in running.stderr
    # Written, not synced: an orderly stop loses nothing.
    home.exec("dev", "sh", "-c", "echo unsynced > /root/file")
    home.run("vm", "stop", "dev")
    assert home.vmms() == {}
    assert home.items("ps")["vm/dev"]["ready"] is False
    _commit(home)
    home.run("vm", "start", "dev")
    assert home.exec("dev", "cat", "/root/file") == "unsynced"
    home.run("vm", "kill", "dev")
    assert home.vmms() == {}
    assert home.planned() == ["start vm/dev"]
    assert "not running" in home.run("exec", "dev", "--", "true", check=False).stderr
    assert "Linux" in home.run("logs", "dev").stdout or home.run("logs", "dev").stdout


def _commit(home: Home) -> None:
    """A stopped VM's disk becomes an image, which a file can name as it is printed; the VM stays as it was."""
    disk = home.root / "state" / "vms" / home.environment / "dev" / "overlay.ext4"
    before = hashlib.sha256(disk.read_bytes()).digest()
    made = yaml.safe_load(home.run("image", "commit", "dev", "gold").stdout)["images"]
    file = Path(made["gold"]["file"])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == made["gold"]["sha256"]
    shown = subprocess.run(["unsquashfs", "-cat", file, "root/file"], check=True, capture_output=True).stdout
    assert shown == b"unsynced\n"
    assert hashlib.sha256(disk.read_bytes()).digest() == before and home.corpses() == [] and home.vmms() == {}
    home.write({"dev": {"image": "small"}, "copy": {"image": "gold"}}, images={**made, "small": SMALL})
    assert {"build image/gold", "create vm/copy", "start vm/copy"} <= set(home.planned())
    home.write({"dev": {"image": "small"}})
