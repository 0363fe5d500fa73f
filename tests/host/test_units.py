"""banger as a service of a real systemd, in a guest: installed, upgraded, killed and removed under running VMs.

The VMs in there are stand-ins (tests/fakes/vmm.py): what is proved is what happens around them, and a guest in an emulated
guest would boot for minutes.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.host.controlling import until
from tests.host.home import Home, bare

if TYPE_CHECKING:
    from tests.host.conftest import Artifacts

pytestmark = pytest.mark.host

ROOT = Path(__file__).parents[2]
# Beside what every image has: what banger needs of a host, and Debian's own Python to install it with.
PACKAGES = (
    *("busybox-static", "debian-archive-keyring", "libcap2-bin", "mmdebstrap", "nftables", "python3"),
    *("squashfs-tools", "uidmap"),
)
BANGER = "/opt/banger/bin/banger"
SCRIPT = b"#!/opt/banger/bin/python3\nimport sys\nfrom reconciler.cli.warm import main\nsys.exit(main())\n"
"""As pip writes it for the entry point of pyproject.toml."""
NEWER = "0.1.1.dev1"
PATIENCE = 300.0
SETTLED = ("active", "running")


# Asks the API as root, over and over in one process: a command line that asks is a second of this emulated processor,
# which the controller needs.
READY = b"""
import http.client, json, socket, sys, time
found, end = None, time.monotonic() + 240
while found != sorted(sys.argv[1:]):
    if time.monotonic() > end:
        sys.exit(f"in vain; ready are {found}")
    time.sleep(0.5)
    connection = http.client.HTTPConnection("banger")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect("/run/banger/controller/controller.sock")
        connection.request("GET", "/v1/vms")
        found = sorted(vm["name"] for vm in json.load(connection.getresponse())["items"] if vm["ready"])
    except (OSError, ValueError, KeyError, http.client.HTTPException) as problem:
        found = repr(problem)
print("ready")
"""


@dataclass
class Guest:
    """A Debian with systemd that plays the host."""

    home: Home

    def sh(self, script: str, *, input: bytes | None = None, check: bool = True) -> str:
        """Runs a script as root in the guest, and returns what it prints."""
        done = subprocess.run(
            self.home.argv("exec", "host", "--", "sh", "-euc", script),
            env=self.home.env,
            cwd=self.home.root,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def put(self, files: dict[str, bytes | Path], *, mode: int = 0o644) -> None:
        """Writes files into the guest; a path stands for its content."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, source in files.items():
                content = source.read_bytes() if isinstance(source, Path) else source
                entry = tarfile.TarInfo(name.lstrip("/"))
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        self.sh("tar -x -C /", input=archive.getvalue())

    def install(self, packages: Path) -> None:
        """Puts packages into the guest's environment, in place of those of their names."""
        with tempfile.TemporaryFile() as archive:
            subprocess.run(["tar", "-C", packages, "--owner=0", "--group=0", "-cz", "."], stdout=archive, check=True)
            archive.seek(0)
            self.sh(
                "cd /opt/banger/lib/python3.11/site-packages; rm -rf reconciler banger-*; tar -xz", input=archive.read()
            )

    def vmms(self) -> dict[str, str]:
        """The VMMs by the stamp that they carry, with pid and start time: a pid alone could be another process's."""
        found = self.sh(
            "for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '^qemu-system-.*guest=banger'; then "
            "echo $(tr '\\0' '\\n' <$p/cmdline | grep '^guest=banger') ${p#/proc/}:$(sed 's/.*) //' $p/stat | cut -d' ' -f20); "
            "fi; done"
        )
        return dict(line.split() for line in found.splitlines())

    def links(self) -> dict[str, tuple[int, str]]:
        """Our bridges and taps: interface index, which a link that was made anew would not have, and state."""
        found = json.loads(self.sh("ip -j link"))
        return {
            link["ifname"]: (link["ifindex"], link["operstate"])
            for link in found
            if link.get("ifalias", "").startswith("banger:")
        }

    def property(self, unit: str, name: str) -> str:
        return self.sh(f"systemctl show --value --property={name} {unit}").strip()

    def ready(self, *names: str) -> bool:
        """Waits until the controller says that these are ready, and no others."""
        said = self.sh(f"/usr/bin/python3 -IS /opt/ready.py {' '.join(names)}", check=False).strip()
        assert said == "ready", f"{said}\n{self.journal()}"
        return True

    def write(self, *names: str) -> None:
        """Replaces the controller's file: these VMs, the last without a network."""
        vms: dict[str, Any] = {name: {"image": "base", "network": "lab"} for name in names}
        vms[names[-1]] = alone()
        self.put({"/etc/banger/banger.d/.new": document("inner", vms)})
        self.sh("mv /etc/banger/banger.d/.new /etc/banger/banger.d/inner.yaml")

    def journal(self) -> str:
        return self.sh("journalctl --no-pager -o cat -u 'banger-*' | tail -60", check=False)


def alone() -> dict[str, Any]:
    return {**bare(), "image": "base"}


def document(environment: str, vms: dict[str, Any]) -> bytes:
    """A file whose image and kernel are those of `_cache`."""
    content = {
        "apiVersion": "banger/v1",
        "name": environment,
        "defaults": {"memory": "96MiB", "disk": "64MiB", "ready": {"ssh": False}},
        "networks": {"lab": {"cidr": "172.30.99.0/24"}},
        "kernels": {"debian": {"debian": {"suite": "bookworm"}}},
        "images": {"base": {"debian": {"suite": "bookworm", "packages": []}, "kernel": "debian"}},
        "vms": vms,
    }
    if not any(vm["network"] == "lab" for vm in vms.values()):
        del content["networks"]
    return yaml.safe_dump(content).encode()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What pip makes of banger's wheel with all that it needs, and of a newer banger's: two folders of packages.

    Made outside of the guest, where pip takes minutes.
    """
    folder = tmp_path_factory.mktemp("packages")
    newer = folder / "source"
    shutil.copytree(ROOT / "reconciler", newer / "reconciler", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("schemas", "systemd"):
        shutil.copytree(ROOT / name, newer / name)
    for name in ("pyproject.toml", "README.md", "banger.yaml.example"):
        shutil.copy(ROOT / name, newer / name)
    init = newer / "reconciler/__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEWER}"', init.read_text()))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = []
    for name, source, needs in (("first", ROOT, ()), ("second", newer, ("--no-deps",))):
        wheels = folder / f"{name}-wheels"
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source], check=True)
        options = [*needs, "--only-binary=:all:", "--python-version=3.11", "--target", folder / name]
        subprocess.run([*pip, "install", *options, *wheels.iterdir()], check=True)
        made.append(folder / name)
    return made[0], made[1]


@pytest.fixture(scope="module")
def guest(
    artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, Path]
) -> Iterator[Guest]:
    """A booted guest in which banger is installed, its controller runs, and it keeps three VMs."""
    home = Home(tmp_path_factory.mktemp("units") / "home", artifact_cache.cache, f"t{secrets.token_hex(3)}")
    made = Guest(home)
    try:
        home.write(
            {"host": {"image": "host", "memory": "1GiB", "disk": "3GiB", "ready": {"timeout": "4m"}}},
            images={"host": {"debian": {"suite": "bookworm", "packages": list(PACKAGES)}, "kernel": "debian"}},
        )
        home.run("apply", "--yes", timeout=600)
        made.put({"/usr/local/bin/qemu-system-x86_64": ROOT / "tests/fakes/vmm.py"}, mode=0o755)
        made.put(_cache(artifact_cache))
        made.sh("python3 -m venv --without-pip /opt/banger")
        made.install(packages[0])
        made.put({BANGER: SCRIPT, "/opt/ready.py": READY}, mode=0o755)
        yield made
        print(made.journal())  # shown if the last test failed
    finally:
        home.destroy()


def _cache(artifacts: Artifacts) -> dict[str, bytes | Path]:
    """The kernel, the image and the guest tools as far as a stand-in needs them: so the guest builds nothing."""
    kernel, image = artifacts.kernel_paths.root, artifacts.image_paths.root
    files: dict[str, bytes | Path] = {
        f"/var/cache/banger/kernels/{kernel.name}/{path.relative_to(kernel)}": path
        for path in kernel.rglob("*")
        if path.is_file() and path.stat().st_size < 1 << 20
    }
    for name in ("vmlinux", "modules.squashfs"):
        files[f"/var/cache/banger/kernels/{kernel.name}/{name}"] = b"left out"
    files[f"/var/cache/banger/images/{image.name}/image.json"] = image / "image.json"
    files[f"/var/cache/banger/images/{image.name}/rootfs.squashfs"] = b"left out"
    tools = artifacts.tools_paths
    files[f"/var/cache/banger/tools/{tools.root.name}/tools.json"] = tools.manifest
    files[f"/var/cache/banger/tools/{tools.root.name}/tools.squashfs"] = b"left out"
    return files


def test_installing_twice_is_installing_once(guest: Guest) -> None:
    listed = guest.sh(f"{BANGER} system install --dry-run 2>&1").splitlines()
    said = guest.sh(f"{BANGER} system install 2>&1").splitlines()
    assert said[: len(listed)] == listed
    assert said[-1] == "next: systemctl enable --now banger-controller.service"
    assert guest.sh(f"{BANGER} system install 2>&1").strip() == "nothing to do: banger is installed and up to date"
    assert guest.sh("grep -c ^banger: /etc/subuid /etc/subgid").split() == ["/etc/subuid:1", "/etc/subgid:1"]
    assert guest.sh("stat -c '%U %a' /usr/lib/banger/helper.pyz").split() == ["root", "644"]


def test_the_controller_keeps_what_the_file_says(guest: Guest) -> None:
    guest.sh("mkdir -p /etc/banger/banger.d")
    guest.write("a", "b", "c")
    # Type=notify: this returns when the controller says that it is ready.
    guest.sh("systemctl enable --now banger-controller.service || { journalctl --no-pager -u 'banger-*'; exit 1; }")
    assert guest.ready("a", "b", "c")
    assert len(guest.vmms()) == 3
    assert len(guest.links()) == 3
    assert guest.property("banger-controller.service", "User") == "banger"
    owners = guest.sh("ps -o user= -p $(pgrep -d, -f '^qemu-system-.*guest=banger')").split()
    assert set(owners) == {"banger"}


def test_the_journal_gets_one_object_for_each_event(guest: Guest) -> None:
    lines = guest.sh("journalctl --no-pager -o json -u banger-controller.service _COMM=python3").splitlines()
    events = [json.loads(line) for line in lines]
    assert events
    for event in events:
        assert json.loads(event["MESSAGE"])["level"] in ("info", "warning", "error")
        assert event["PRIORITY"] in "346"
    assert any(json.loads(event["MESSAGE"])["message"] == "keeping" for event in events)


def test_little_is_exposed(guest: Guest) -> None:
    for unit, most in (("banger-controller.service", 2.5), ("banger-helper.service", 4.0)):
        said = guest.sh(f"systemd-analyze security --no-pager {unit} | tail -1")
        found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
        assert found and float(found[1]) <= most, said
        print(said.strip())


def test_an_upgrade_leaves_every_vm_tap_and_bridge(guest: Guest, packages: tuple[Path, Path]) -> None:
    vmms, links = guest.vmms(), guest.links()
    pid = guest.property("banger-controller.service", "MainPID")
    guest.install(packages[1])
    said = guest.sh(f"{BANGER} system install 2>&1")
    assert "try-restart banger-controller.service" in said, said
    assert "/usr/lib/banger/helper.pyz" in said, said
    assert guest.property("banger-controller.service", "MainPID") != pid
    assert NEWER in guest.sh(f"{BANGER} version")
    assert guest.ready("a", "b", "c")
    assert (guest.vmms(), guest.links()) == (vmms, links)
    # And it works: another VM needs the new helper for its tap, and the new controller for everything else.
    guest.write("a", "b", "d", "c")
    assert guest.ready("a", "b", "c", "d")
    assert vmms.items() <= guest.vmms().items()
    assert links.items() <= guest.links().items()


def test_killed_it_comes_back_and_the_vms_never_went(guest: Guest) -> None:
    vmms, links = guest.vmms(), guest.links()
    pid = guest.property("banger-controller.service", "MainPID")
    guest.sh(
        "systemctl kill --signal=KILL --kill-whom=main banger-controller.service; systemctl stop banger-helper.service"
    )
    until(
        lambda: (
            guest.property("banger-controller.service", "SubState") == "running"
            and guest.property("banger-controller.service", "MainPID") != pid
        ),
        "a restarted controller",
        PATIENCE,
    )
    assert guest.ready("a", "b", "c", "d")
    assert (guest.vmms(), guest.links()) == (vmms, links)
    assert guest.sh("systemctl list-units --failed --plain --no-legend 'banger*'") == ""


def test_stopped_and_started_it_finds_its_vms(guest: Guest) -> None:
    vmms, links = guest.vmms(), guest.links()
    guest.sh("systemctl stop banger-controller.service")
    assert (guest.vmms(), guest.links()) == (vmms, links)
    refused = guest.sh(f"cd /; {BANGER} ps -A 2>&1", check=False)
    assert "belongs to the service banger-controller" in refused
    guest.sh("systemctl start banger-controller.service")
    assert guest.ready("a", "b", "c", "d")
    assert (guest.vmms(), guest.links()) == (vmms, links)


def test_the_builder_gets_what_the_controller_may_not_have(guest: Guest) -> None:
    """Subordinate ids and a /proc of its own, in the very sandbox of the unit."""
    box = (
        "from reconciler.lib.bootstrap import sandbox; from reconciler.lib.run import run; "
        "print(run([*sandbox(), 'sh', '-c', 'chown 1:1 $TMPDIR/x && stat -c %u $TMPDIR/x && ls /proc | grep -c ^1$'], "
        "env={'TMPDIR': '/var/cache/banger'}).stdout.decode())"
    )
    guest.put({"/opt/box.py": box.encode()})
    guest.sh("install -o banger -g banger /dev/null /var/cache/banger/x")
    unit = guest.sh(
        "grep -E '^(User|Group|Capability|Device|Protect|Private|Keyring|UMask|CacheD)' "
        "/etc/systemd/system/banger-builder@.service"
    ).split("\n")
    properties = " ".join(f"-p '{line}'" for line in unit if line)
    run = f"systemd-run --quiet --pipe --wait --collect {properties} /opt/banger/bin/python -P /opt/box.py"
    assert guest.sh(run).split() == ["1", "1"]
    # And a request that is none is answered by the real one.
    ask = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/banger/builder.sock'); " + (
        r"s.sendall(b\"{}\\n\"); print(s.makefile().readline())"
    )
    assert "does not know what is asked for" in guest.sh(f'runuser -u banger -- python3 -c "{ask}"')


def test_a_vm_of_roots_own_is_in_its_scope(guest: Guest) -> None:
    before = guest.vmms()
    guest.put({"/root/own/banger.yaml": document("own", {"x": alone()})})
    own = "cd /root/own; BANGER_HOME=/root/own/home"
    guest.sh(f"mkdir -p /root/own/home; cp -r /var/cache/banger /root/own/home/cache; {own} {BANGER} apply --yes")
    made = {stamp: at for stamp, at in guest.vmms().items() if stamp not in before}
    assert len(made) == 1
    for stamp, at in made.items():
        _, install, vm = stamp.removeprefix("guest=").split(".")
        scope = f"banger-vm-{install}-{vm}.scope"
        assert (guest.property(scope, "ActiveState"), guest.property(scope, "SubState")) == SETTLED
        assert scope in guest.sh(f"cat /proc/{at.split(':')[0]}/cgroup")
    guest.sh(f"{own} {BANGER} delete own --yes")
    assert guest.vmms() == before


def test_uninstalled_it_leaves_vms_and_state(guest: Guest) -> None:
    vmms, links = guest.vmms(), guest.links()
    guest.sh(f"{BANGER} system uninstall")
    assert (guest.vmms(), guest.links()) == (vmms, links)
    left = guest.sh(
        "ls -d /usr/lib/banger /etc/systemd/system/banger* /etc/systemd/system/*/banger* /etc/sysusers.d/banger.conf "
        "2>/dev/null || true"
    )
    assert left == ""
    assert guest.sh("ls /var/lib/banger/banger.db /etc/banger/banger.d/inner.yaml").split() != []
