"""Twenty small VMs of one file, one of them impossible."""

from __future__ import annotations

import pytest

from tests.host.home import Home
from tests.host.images import SMALL

pytestmark = pytest.mark.host


def test_twenty_vms_become_ready_beside_an_impossible_one(home: Home) -> None:
    images = {
        "small": SMALL,
        "wrong": {"debian": {"suite": "bookworm", "packages": ["no-such-package-at-all"]}, "kernel": "debian"},
    }
    crowd = {"image": "small", "count": 19, "memory": "128MiB", "disk": "256MiB", "ready": {"timeout": "10m"}}
    home.write({"bad": {"image": "wrong", "memory": "128MiB"}, "web": crowd}, images=images)
    done = home.run("apply", check=False, timeout=900)
    assert done.returncode == 1
    assert "no-such-package-at-all" in done.stderr
    items = home.items("ps")
    ready = [name for name, item in items.items() if item["ready"]]
    assert len(ready) == 19, {name: item["state"] for name, item in items.items()}
    assert items.get("vm/bad", {"ready": False})["ready"] is False
    # The twentieth, mended, joins; the others are not touched.
    pids = {name: item["pid"] for name, item in items.items() if item["ready"]}
    home.write({"bad": {"image": "small", "memory": "128MiB", "ready": {"timeout": "10m"}}, "web": crowd})
    home.run("apply", timeout=900)
    after = home.items("ps")
    assert sum(item["ready"] for item in after.values()) == 20
    assert {name: after[name]["pid"] for name in pids} == pids
