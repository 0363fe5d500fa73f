"""One-off VMs, with real ones: what they pass on, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.host.home import Home
from tests.workspace.places import Place

pytestmark = pytest.mark.host

RUN = ("run", "--memory", "256MiB", "--image", "base")


def nothing_runs(home: Home) -> None:
    assert home.vmms() == {}
    assert home.helpers() == []
    assert list((home.root / "state" / "runs").glob("*")) == []
    assert list((home.root / "state" / "vms").glob("run-*/*")) == []


def test_a_folder_a_volume_and_the_exit_code(home: Home, tmp_path: Path) -> None:
    home.write({})
    folder = Place(tmp_path / "plain")
    folder.write("sub/f", "here\n")
    script = "cat sub/f; mountpoint /data; exit 7"
    done = home.run(
        *RUN, "--volume", "data:64MiB:/data", str(folder.root), "--", "sh", "-c", script, check=False, timeout=900
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == "here\n/data is a mountpoint\n"
    nothing_runs(home)
    (entry,) = (home.root / "state" / "trash").glob("run-*")
    assert (entry / "vm").is_dir() and (entry / "volumes").is_dir()


def test_without_a_network(home: Home) -> None:
    home.write({})
    done = home.run(*RUN, "--network", "none", "--", "sh", "-c", "id -un; exit 7", check=False, timeout=900)
    assert (done.returncode, done.stdout) == (7, "root\n"), done.stderr
    nothing_runs(home)


def test_rm_leaves_not_even_trash(home: Home) -> None:
    home.write({})
    home.run(*RUN, "--rm", "--volume", "data:64MiB:/data", "--", "true", timeout=900)
    nothing_runs(home)
    assert [path for path in (home.root / "state" / "trash").rglob("*") if path.name != ".staging"] == []


def wait_for(home: Home, what: str) -> None:
    deadline = time.monotonic() + 300
    while what not in home.said.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert what in home.said.read_text()


@pytest.mark.parametrize("when", ["create vm", "done start", "starting"])
def test_ctrl_c_leaves_nothing_but_the_trash(home: Home, when: str) -> None:
    home.write({})
    running = home.start(*RUN, "--", "sleep", "600")
    wait_for(home, when)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(120) == 130
    nothing_runs(home)


def test_a_killed_one_goes_with_the_next_command(home: Home) -> None:
    home.write({})
    running = home.start(*RUN, "--", "sleep", "600")
    wait_for(home, "done start")
    running.kill()
    running.wait()
    assert home.vmms()
    assert "removed run-" in home.run("ps").stderr
    nothing_runs(home)
    assert subprocess.run(["ls", home.root / "state" / "trash"], capture_output=True, check=True).stdout.startswith(
        b"run-"
    )
