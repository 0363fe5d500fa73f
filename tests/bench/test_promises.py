"""The numbers that banger promises, each measured beside what it is compared with. `make bench` prints them."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from reconciler.drivers.vmm import disks
from reconciler.lib.units import GIB, MIB
from reconciler.model.artifacts import GUEST_TOOLS, DebianImage, DebianKernel, Image, Kernel
from reconciler.model.changes import boot_facts, creation_facts
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, ObservedVm
from reconciler.model.vm import Network, Ready, Vm
from reconciler.plan import plan
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory, VmRow
from tests.bench.conftest import Measurement, Record
from tests.host.home import Home
from tests.host.rawqemu import TSC, Disk, free_port, raw_qemu_argv, running, speaks_ssh
from tests.spec.test_hostile_files import FILES

pytestmark = pytest.mark.bench

KERNEL = Kernel(name="debian", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))
IMAGE = Image(name="base", source=DebianImage(suite="bookworm", packages=()), kernel="debian")
LAB = Network(name="lab", cidr=IPv4Network("10.0.0.0/16"), mtu=1500, nameservers=())


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def vm(name: str, network: str = "none") -> Vm:
    return Vm(
        name=name,
        image="base",
        image_id=IMAGE.id,
        kernel="debian",
        kernel_id=KERNEL.id,
        cpus=2,
        memory=512 * MIB,
        disk=GIB,
        network=network,
        ready=Ready(ssh=network != "none"),
    )


@pytest.mark.host
def test_cold_start_costs_little_beside_the_raw_command(home: Home, tmp_path: Path, record: Record) -> None:
    """From `apply` with a cached image to ssh-ready, over QEMU started by hand with the same files."""
    home.write({"dev": {"image": "base", "cpus": 2, "memory": "512MiB", "disk": "1GiB"}})
    home.run("apply")
    home.run("vm", "stop", "dev")
    kept = tmp_path / "config.tar"
    shutil.copy(home.root / "state" / "vms" / home.environment / "dev" / "config.tar", kept)
    home.run("delete", "--yes")
    initrd = max(home.cache.joinpath("initramfs").glob("*.cpio"), key=lambda made: made.stat().st_mtime)
    kernel, image = home.cache / "kernels" / KERNEL.id, home.cache / "images" / IMAGE.id

    def raw() -> None:
        overlay, port = tmp_path / "overlay.ext4", free_port()
        overlay.unlink(missing_ok=True)
        disks.create_ext4(overlay, GIB, "overlay")
        argv = raw_qemu_argv(
            kernel=kernel / "vmlinux",
            initrd=initrd,
            console=tmp_path / "console.log",
            disks=[
                Disk("root", image / "rootfs.squashfs", True),
                Disk("overlay", overlay),
                Disk("config", kept, True),
                Disk("modules", kernel / "modules.squashfs", True),
                Disk("tools", home.cache / "tools" / GUEST_TOOLS.id / "tools.squashfs", True),
            ],
            command_line=f"console=ttyS0 reboot=t panic=-1 quiet net.ifnames=0 {TSC}",
            netdev=f"user,hostfwd=tcp:127.0.0.1:{port}-:22",
            mac=mac,
        )
        with running(argv):
            while not speaks_ssh(port, 1.0):
                pass

    def ours() -> None:
        home.run("apply")

    # The config disk names the card by its MAC, which follows from the VM's name.
    home.run("apply", "--no-wait")
    mac = str(home.items("ps")["vm/dev"]["mac"])
    home.kill_vmms()
    home.run("delete", "--yes")
    mine, theirs = [], []
    for _ in range(5):
        theirs.append(timed(raw))
        mine.append(timed(ours))
        home.kill_vmms()
        home.run("delete", "--yes")
    a, b = statistics.median(mine), statistics.median(theirs)
    record(Measurement("cold start", f"{a:.2f} s", f"raw QEMU {b:.2f} s", a / b, 1.15, "×"))


@contextmanager
def twenty_vms(root: Path) -> Iterator[Path]:
    """An inventory of twenty VMs, with a process for each that shows itself in /proc as a VMM does."""
    database = Database(root / "state" / "banger.db", create=True)
    inventory = Inventory(database)
    with ExitStack() as stack:
        for number in range(20):
            spec = vm(f"web-{number + 1}")
            inventory.put_vm(
                VmRow(
                    environment="demo",
                    name=spec.name,
                    id=f"{number:012x}",
                    spec=spec,
                    created=creation_facts(spec),
                    booted=boot_facts(spec, None, None),
                    address=None,
                    forwards={},
                    created_at=1.0,
                    started_at=2.0,
                )
            )
            stamp = f"guest=banger.{inventory.install}.{number:012x}"
            disguise = ["qemu-system-x86_64", "-c", "import time; time.sleep(3600)", "-name", stamp]
            child = stack.enter_context(
                subprocess.Popen(disguise, executable=sys.executable, stdout=subprocess.DEVNULL)
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
        database.close()
        yield root


def test_ps_is_quick(tmp_path: Path, record: Record) -> None:
    """`banger ps` with 20 VMs, over an interpreter that does nothing."""
    with twenty_vms(tmp_path / "home") as root:
        one = Home(root, tmp_path, "demo")
        script = Path(sys.executable).with_name("banger")
        argv = [str(script)] if script.exists() else one.argv()

        def ps() -> None:
            subprocess.run([*argv, "ps"], env=one.env, cwd=root, capture_output=True, check=True)

        def nothing() -> None:
            subprocess.run([sys.executable, "-c", "pass"], env=one.env, check=True)

        listing = subprocess.run([*argv, "ps", "-o", "json"], env=one.env, cwd=root, capture_output=True, check=True)
        states = [item["state"] for item in json.loads(listing.stdout)["items"]]
        assert states == ["ready"] * 20
        mine, theirs = [], []
        for _ in range(15):
            theirs.append(timed(nothing))
            mine.append(timed(ps))
    a, b = statistics.median(mine), statistics.median(theirs)
    record(Measurement("ps, 20 VMs", f"{a * 1000:.0f} ms", f"python -c pass {b * 1000:.0f} ms", a / b, 12, "×"))


def test_planning_a_thousand_vms_is_quick(record: Record) -> None:
    """A plan for 1,000 VMs: half new, half there and edited."""
    names = [f"vm-{number}" for number in range(1000)]
    desired = DesiredState(
        environment="demo",
        networks={"lab": LAB},
        kernels={"debian": KERNEL},
        images={"base": IMAGE},
        vms={name: vm(name, "lab") for name in names},
    )
    old = {}
    for number, name in enumerate(names[:500]):
        spec = Vm(**{**{f: getattr(desired.vms[name], f) for f in Vm.__slots__}, "memory": 256 * MIB})
        address = LAB.cidr.network_address + 2 + number
        old[name] = ObservedVm(
            name=name,
            id=f"{number:012x}",
            spec=spec,
            mac="02:00:00:00:00:00",
            address=address,
            created=creation_facts(spec),
            booted=boot_facts(spec, LAB, address),
            disk=True,
            pid=number + 2,
        )
    observed = ObservedState(install="0" * 12, environment="demo", vms=old, networks={"lab": LAB})
    assert len(plan(desired, observed).steps) > 2000
    median = statistics.median(timed(lambda: plan(desired, observed)) for _ in range(9)) * 1000
    record(Measurement("plan, 1,000 VMs", f"{median:.0f} ms", "the clock", median, 150, " ms"))


def test_a_bad_file_is_refused_soon(tmp_path: Path, record: Record) -> None:
    """The slowest of the hostile files, from the command to its end; each is the best of three."""
    one = Home(tmp_path / "home", tmp_path, "demo")
    worst, name = 0.0, ""
    for case, content in FILES.items():
        path = tmp_path / "bad"
        path.write_bytes(content)

        def refuse(path: Path = path) -> None:
            done = subprocess.run(one.argv("apply", "-f", str(path)), env=one.env, capture_output=True, check=False)
            assert done.returncode == 2

        took = min(timed(refuse) for _ in range(3)) * 1000
        worst, name = max((worst, name), (took, case))
    record(Measurement(f"bad files, slowest of {len(FILES)}", name, "the clock", worst, 300, " ms"))
