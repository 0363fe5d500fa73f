"""Any image boots to ready and runs commands: with an init of its own or without one, with a network or without."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.drivers.guest.agent import Agent
from reconciler.lib.paths import Paths
from tests.host import images
from tests.host.conftest import Artifacts
from tests.host.home import Home

pytestmark = pytest.mark.host

SECONDS = 60.0
INITS = {"debian": "systemd", "scratch": "banger", "shell": "banger", "openrc": "other"}

# Its whole world is one program. It tells who and where it is, fails once, and then stays.
ENTRYPOINT = """\
echo "entry uid=$(/busybox id -u) gid=$(/busybox id -g) cwd=$PWD greeting=$GREETING home=$HOME" >/dev/stdout
if [ ! -e /srv/again ]; then
    : >/srv/again
    exit 3
fi
trap 'echo entry was asked to end; exit 0' QUIT
while :; do /busybox sleep 1; done
"""
CONFIG = {
    "entrypoint": ["/busybox", "sh", "-c"],
    "cmd": [ENTRYPOINT],
    "env": ["GREETING=it's\nme", "PATH=/nowhere"],
    "user": "1234:5678",
    "workdir": "/srv",
    "stopSignal": "SIGQUIT",
    "labels": {"a": "b"},
}


@pytest.fixture(scope="module")
def world(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """All images at once, each on the network `none`; those without an init also on one that needs no root."""
    base = tmp_path_factory.mktemp("any")
    home = Home(base / "home", artifact_cache.cache, f"t{secrets.token_hex(3)}")
    scratch = images.static(base / "scratch")
    (scratch / "srv").mkdir()
    (scratch / "srv").chmod(0o777)
    declared = {
        "scratch": images.put(home.cache, "scratch", scratch, CONFIG),
        "shell": images.put(home.cache, "shell", images.shell_only(base / "shell"), {"entrypoint": ["/init"]}),
        "openrc": images.put(home.cache, "openrc", images.openrc(base / "openrc", base / "tmp")),
        "debian": {"debian": {"suite": "bookworm", "packages": []}, "kernel": "debian"},
    }
    offline = {name: {"image": name, "network": "none"} for name in declared}
    online = {f"{name}-net": {"image": name, "network": "user"} for name in ("scratch", "shell")}
    offline["debian"]["memory"] = "256MiB"
    home.write({**offline, **online}, images=declared, defaults={"memory": "128MiB", "disk": "1GiB"})
    try:
        home.run("apply", "--yes", "--timeout", "280s")
        yield home
    finally:
        home.destroy()
    assert home.vmms() == {}
    assert home.mounts() == []


def agent(world: Home, vm: str) -> Agent:
    return Agent(Paths.discover({"BANGER_HOME": str(world.root)}).vm(world.environment, vm), SECONDS)


def out(world: Home, vm: str, script: str) -> str:
    """What a script says, told to the agent: no network is needed."""
    done = agent(world, vm).run(["sh", "-c", script], seconds=SECONDS)
    assert done.code == 0, done
    return done.stdout.decode().strip()


def console(world: Home, vm: str) -> str:
    return world.run("logs", vm).stdout


@pytest.mark.parametrize("image", INITS)
def test_it_is_ready_and_runs_a_command_without_a_network(world: Home, image: str) -> None:
    assert world.items("ps")[f"vm/{image}"]["state"] == "ready"
    assert (
        out(world, image, "cat /run/banger/init; id -u; hostname; ls /sys/class/net")
        == f"{INITS[image]}\n0\n{image}\nlo"
    )


@pytest.mark.parametrize("image", ["scratch", "shell"])
def test_it_is_entered_by_ssh(world: Home, image: str) -> None:
    vm = f"{image}-net"
    assert world.items("ps")[f"vm/{vm}"]["state"] == "ready"
    done = world.run("exec", vm, "--", "sh", "-c", 'hostname; echo "a  b" >&2; exit 42', check=False)
    assert (done.returncode, done.stdout, done.stderr) == (42, f"{vm}\n", "a  b\n")


def test_the_host_key_is_the_one_that_was_pinned(world: Home) -> None:
    known = (world.root / "state" / "vms" / world.environment / "shell-net" / "known_hosts").read_text().split()[2]
    assert known in out(world, "shell-net", "cat /run/banger/ssh_host_ed25519_key.pub")


def test_other_users_are_let_in_and_keys_that_were_there_stay(world: Home) -> None:
    assert out(world, "shell-net", "ls -l /home/alice/.ssh/authorized_keys").endswith("/run/banger/authorized_keys")
    assert "alice" in out(world, "shell-net", "tail -n 1 /etc/passwd"), "a last line without its end"


def test_the_entrypoint_runs_as_the_image_says_until_it_succeeds(world: Home) -> None:
    text = console(world, "scratch").replace("\r", "")
    said = "entry uid=1234 gid=5678 cwd=/srv greeting=it's\nme home=/"
    assert text.count(said) == 2, text[-2000:]
    assert "the entrypoint ended with exit code 3" in text


def test_an_entrypoint_that_is_an_init_is_the_first_process_of_its_own_world(world: Home) -> None:
    assert "init is process 1" in console(world, "shell").replace("\r", "").splitlines()
    assert out(world, "shell", "cat /proc/1/comm") == "supervise", "and not of the machine"


def test_every_image_has_a_shell_and_programs(world: Home) -> None:
    assert "busybox" in out(world, "scratch", "readlink -f /bin/sh")
    assert out(world, "scratch", "echo one two | awk '{print $2}'") == "two"
    assert out(world, "scratch", "stat -c %a /tmp /root") == "1777\n700"


def test_an_init_of_the_image_does_its_work(world: Home) -> None:
    assert out(world, "openrc", "readlink -f /proc/1/exe") == "/bin/busybox"
    assert out(world, "openrc", "cat /run/hello") == "default"


def test_orphans_are_reaped(world: Home) -> None:
    out(world, "shell", "for i in 1 2 3; do (sh -c 'sleep 0.1 &' &); done; sleep 1")
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
    assert out(world, "shell", zombies) == "0"


@pytest.mark.parametrize("vm", ["scratch", "shell-net", "openrc"])
def test_it_ends_in_order_and_keeps_what_was_written(world: Home, vm: str) -> None:
    out(world, vm, "echo kept >/etc/kept")
    world.run("vm", "stop", vm)
    text = console(world, vm)
    assert "reboot: Power down" in text.splitlines()[-1], "by its own init, not by a kill"
    if vm == "scratch":
        assert "entry was asked to end" in text, "by the signal that the image names"
    if vm == "shell-net":
        assert "init was asked to end" in text
    world.run("vm", "start", vm)
    assert out(world, vm, "cat /etc/kept") == "kept"


def test_a_second_apply_finds_nothing_to_do(world: Home) -> None:
    assert world.planned() == []


def test_tools_are_one_disk_that_stands_by_itself(artifact_cache: Artifacts, world: Home, tmp_path: Path) -> None:
    found = out(
        world,
        "scratch",
        "ls /run/banger/tools; /run/banger/tools/bin/setpriv --version; echo >/run/banger/tools/x || true",
    )
    assert found.split()[:4] == ["applets", "bin", "lib", "libexec"]
    assert "util-linux" in found
