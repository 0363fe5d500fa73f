"""Whatever is broken from outside, one apply repairs; whenever banger is killed, the next apply converges."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.helper.names import managed
from reconciler.lib.atomic import corpses
from tests.host.home import Home, bare

pytestmark = pytest.mark.host

KILLS = int(os.environ.get("BANGER_KILLS", "50"))


def links_of_others() -> str:
    """Every link of the host that no banger made, as the kernel tells it: other tests' homes run beside this one."""
    listing = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    kept = [line for line in listing.splitlines() if not managed(line.split(": ")[1].split("@")[0])]
    return "\n".join(sorted(line.split("state")[0] for line in kept))


@contextmanager
def foreigners(home: Home, cidr: str) -> Iterator[None]:
    """A bridge, a tap and a process that are somebody else's, and look much like ours. Untouched at the end."""
    names = (f"fb-{home.environment}", f"ft-{home.environment}")
    subprocess.run(["ip", "link", "add", names[0], "type", "bridge"], check=True)
    subprocess.run(["ip", "tuntap", "add", names[1], "mode", "tap"], check=True)
    subprocess.run(
        ["ip", "link", "set", names[1], "alias", f"banger:000000000000:0:{home.environment}:vm/a"], check=True
    )
    # To anyone who reads /proc, a VMM of another installation.
    disguise = ["qemu-system-x86_64", "-c", "import time; time.sleep(3600)", "-name", "guest=banger.000000000000.feed"]
    process = subprocess.Popen(disguise, executable=sys.executable)
    before = links_of_others()
    try:
        yield
        assert links_of_others() == before
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        for name in names:
            subprocess.run(["ip", "link", "del", name], check=True)


def converged(home: Home) -> None:
    """One apply, and then everything is as it should be and nothing is left over."""
    home.run("apply", "--no-wait")
    assert home.planned() == []
    assert home.helpers() == []
    assert home.corpses() == []
    assert home.mounts() == []


def test_each_loss_is_repaired_by_one_apply(home: Home, subnet: Callable[[], str]) -> None:
    home.write({"a": {"image": "small", "network": "lab"}, "b": bare()}, networks={"lab": {"cidr": subnet()}})
    with foreigners(home, subnet()):
        home.run("apply")
        home.exec("a", "sh", "-c", "echo kept > /root/file; sync")
        address = home.items()["vm/a"]["address"]
        bridge = next(name for name in home.links() if name.startswith("bgb-"))
        tap = next(name for name in home.links() if name.startswith("bgt-"))

        # The VMM is killed.
        [victim] = [pid for pid, words in home.vmms().items() if tap in words]
        os.kill(victim, signal.SIGKILL)
        assert home.planned() == ["start vm/a"]
        home.run("apply")

        # The tap goes: the VMM holds a dead one, so it has to start again.
        subprocess.run(["ip", "link", "del", tap], check=True)
        assert {"stop vm/a", "connect vm/a", "start vm/a"} == set(home.planned())
        home.run("apply")

        # The bridge goes: the VM goes on.
        pids = set(home.vmms())
        subprocess.run(["ip", "link", "del", bridge], check=True)
        assert set(home.planned()) == {"ensure network/lab", "filter network/lab", "connect vm/a"}
        home.run("apply")
        assert set(home.vmms()) == pids
        subprocess.run(["ip", "link", "set", bridge, "down"], check=True)
        home.run("apply")
        assert set(home.vmms()) == pids

        assert home.exec("a", "cat", "/root/file") == "kept"
        assert home.items()["vm/a"]["address"] == address
        assert home.planned() == []


def test_a_reboot_blocks_nothing(home: Home, subnet: Callable[[], str]) -> None:
    """A reboot leaves the files, and takes processes and links; pids and sockets are stale, or somebody else's."""
    home.write({"a": {"image": "small", "network": "lab"}, "b": bare()}, networks={"lab": {"cidr": subnet()}})
    home.run("apply")
    run = home.root / "run" / "vms" / home.environment
    stale = {file: file.read_bytes() for file in run.rglob("pid")}
    home.kill_vmms()
    for name in home.links():
        subprocess.run(["ip", "link", "del", name], check=True)
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{os.getpid()}\n")
    remembered = home.cache / "accelerator.json"
    remembered.write_text(remembered.read_text().replace('"boot": "', '"boot": "0'))
    home.run("apply")
    items = home.items()
    assert all(item["ready"] for item in items.values()), items
    assert home.planned() == []


def kill_moments() -> list[tuple[str, float]]:
    """Which command is killed, and when: a share of the time that it takes undisturbed. In turn, so each has work to do."""
    spread = random.Random(20240811)
    return [(("apply", "delete")[n % 2], (n // 2 + spread.random()) / (KILLS / 2)) for n in range(KILLS)]


def test_killed_at_any_moment_the_next_apply_converges(home: Home, subnet: Callable[[], str]) -> None:
    home.write(
        {
            "a": {"image": "small", "network": "lab", "ready": {"ssh": False}},
            "b": {**bare(), "volumes": {"data": {"size": "64MiB", "mount": "/data"}}},
        },
        networks={"lab": {"cidr": subnet()}},
    )
    with foreigners(home, subnet()):
        usual = {}
        for command in ("apply", "delete") * 2:  # the first round warms up: the second is the usual
            began = time.monotonic()
            home.run(*words(home, command))
            usual[command] = time.monotonic() - began
            # A dead guest need not be asked to shut down: the kills fall on what banger does itself.
            home.kill_vmms()
        for command, share in kill_moments():
            while not killed_in_time(home, command, usual[command] * share):
                usual[command] *= 0.9  # it was over sooner than usual
                home.run(*words(home, "delete" if command == "apply" else "apply"))
                home.kill_vmms()
            converged(home)
            assert len(home.vmms()) == 2, f"{command} killed at {share:.2f}"
            assert len(home.links()) == 2
            items = home.items("ps")
            addresses = [item["address"] for item in items.values() if item["address"]]
            assert len(addresses) == len(set(addresses)) == 1
            home.kill_vmms()
            if command == "delete":
                gone(home)
        if command == "apply":
            gone(home)


def gone(home: Home) -> None:
    """Deletes the environment, and nothing of it is left."""
    home.run(*words(home, "delete"))
    assert home.links() == {}
    left = [p for part in ("vms", "volumes") for p in (home.root / "state" / part).rglob("*")]
    assert left == []


def killed_in_time(home: Home, command: str, delay: float) -> bool:
    """Kills `banger COMMAND` after so many seconds; False if it had ended by itself before."""
    child = home.start(*words(home, command))
    try:
        child.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return True
    home.kill_vmms()
    return False


def words(home: Home, command: str) -> list[str]:
    return ["apply", "--no-wait"] if command == "apply" else ["delete", home.environment, "--yes"]


def test_ctrl_c_ends_in_order(home: Home) -> None:
    """During a build: the build's processes go, nothing is left, and the exit code says why."""
    images = {"other": {"debian": {"suite": "bookworm", "packages": ["ed"]}, "kernel": "debian"}}
    home.write({"a": {**bare(), "image": "other"}}, images=images)
    child = subprocess.Popen(
        home.argv("apply"),
        env=home.env,
        cwd=home.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "packages" in line:
            break
    os.kill(child.pid, signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert home.helpers() == []
    assert home.mounts() == []
    assert corpses(home.cache / "images") == []  # there may be others at work


def test_the_image_is_built_once_even_when_two_ask(home: Home, tmp_path: Path) -> None:
    """Two homes, one cache, one new image: the second finds what the first has built."""
    other = Home(tmp_path / "other", home.cache, home.environment)
    images = {"new": {"debian": {"suite": "bookworm", "packages": ["less"]}, "kernel": "debian"}}
    for one in (home, other):
        one.write({"a": {**bare(), "image": "new", "state": "stopped"}}, images=images)
    children = [one.start("apply") for one in (home, other)]
    assert [child.wait(300) for child in children] == [0, 0], home.said.read_text() + other.said.read_text()
    identity = home.plan()["environment"]
    assert identity == home.environment
    assert home.planned() == other.planned() == []
    other.destroy()
