"""A host whose boundary is fake and whose middle is real: files, database, planner and executor are banger's own."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions, ApplyResult, Source
from reconciler.daemon import drivers as daemon_drivers
from reconciler.daemon.engine import Engine
from reconciler.daemon.local import LocalService
from reconciler.drivers.guest import initramfs, toolsdisk
from reconciler.drivers.guest import probe as guest_probe
from reconciler.drivers.images import build
from reconciler.drivers.kernels import fetch
from reconciler.drivers.network import connect
from reconciler.drivers.network import probe as network_probe
from reconciler.drivers.vmm import keeper
from reconciler.drivers.vmm import probe as vmm_probe
from reconciler.execute.boots import BootGate
from reconciler.execute.tools import Tools
from reconciler.lib.errors import BangerError
from reconciler.lib.once import once
from reconciler.lib.paths import KernelPaths, Paths, ToolsPaths
from reconciler.lib.progress import Progress, Silent
from reconciler.lib.units import MIB
from reconciler.model.artifacts import GUEST_TOOLS, DebianImage, DebianKernel, GuestTools, Image, Kernel
from reconciler.model.desired import DesiredState
from reconciler.model.observed_links import Links
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Plan, Step
from reconciler.model.status import ObjectStatus
from reconciler.model.vm import Network, Ready, RunState, Vm, Volume
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal
from tests.fakes.backend import TCG, FakeBackend
from tests.fakes.clock import FakeClock
from tests.fakes.helper import FakeHelper

KERNEL = Kernel(name="debian", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))


def image(name: str = "base", *packages: str) -> Image:
    return Image(name=name, source=DebianImage(suite="bookworm", packages=packages), kernel=KERNEL.name)


def vm(name: str, *, of: Image | None = None, volumes: Sequence[str] = (), **fields: object) -> Vm:
    """A small VM; its volumes have 16 MiB each."""
    made = of or image()
    network = str(fields.get("network", "user"))
    values: dict[str, object] = {
        "image": made.name,
        "image_id": made.id,
        "kernel": KERNEL.name,
        "kernel_id": KERNEL.id,
        "cpus": 1,
        "memory": 128 * MIB,
        "disk": 16 * MIB,
        "network": network,
        "ready": Ready(ssh=network != "none", timeout=5.0),
        "volumes": tuple(Volume(name=v, size=16 * MIB, mount=f"/{v}") for v in volumes),
    }
    return Vm(name=name, **{**values, **fields})  # type: ignore[arg-type]  # the fields of a Vm


def network(name: str = "lab", cidr: str = "172.30.7.0/24") -> Network:
    subnet = IPv4Network(cidr)
    return Network(name=name, cidr=subnet, mtu=1500, nameservers=(subnet.network_address + 1,))


def desired(
    *vms: Vm, images: Sequence[Image] = (), networks: Sequence[Network] = (), name: str = "env"
) -> DesiredState:
    return DesiredState(
        environment=name,
        networks={n.name: n for n in networks},
        kernels={KERNEL.name: KERNEL},
        images={i.name: i for i in images or (image(),)},
        vms={v.name: v for v in vms},
    )


@dataclass
class Recorder:
    """A `Reporter` that remembers."""

    done: list[Outcome] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waited: list[Sequence[ObjectStatus]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def started(self, step: Step) -> None:
        self.order.append(f"+{step.id}")

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        pass

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        self.retries.append(f"{step.id}: {error}")

    def finished(self, step: Step, outcome: Outcome) -> None:
        self.done.append(outcome)
        self.order.append(f"-{step.id}")

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        self.waited.append(vms)

    def note(self, message: str) -> None:
        self.notes.append(message)


class Host:
    """One host with one state directory below `root`, and the service that works on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths.discover({"BANGER_HOME": str(root)})
        self.clock = FakeClock()
        self.backend = FakeBackend()
        self.helper = FakeHelper(self.backend.holds)
        self.reporter = Recorder()
        self.broken_images: set[str] = set()
        self.silent: set[str] = set()
        """VMs that never answer, by label."""
        # Of another environment's making, as on most hosts: `lose_tools` is for a fresh one.
        self._make_tools_disk(GUEST_TOOLS, self.paths, Silent())
        self.service = LocalService(Engine(self.paths, self.clock))
        monkeypatch.setattr(daemon_drivers, "make_tools", self._tools)
        monkeypatch.setattr(vmm_probe, "find", self.backend.find)
        monkeypatch.setattr(keeper, "ensure", lambda *_: None)  # a process of the real host
        monkeypatch.setattr(network_probe, "read_links", self._read_links)
        monkeypatch.setattr(connect, "open_helper", lambda **_: self.helper)
        monkeypatch.setattr(guest_probe, "ssh_banner", self._answers)
        monkeypatch.setattr(guest_probe, "port_open", lambda host, port, *_: self._answers(host, port, 0.0))
        monkeypatch.setattr(fetch, "fetch", self._fetch)
        monkeypatch.setattr(toolsdisk, "fetch", self._make_tools_disk)
        monkeypatch.setattr(build, "build", self._build)
        monkeypatch.setattr(initramfs, "ensure", self._initramfs)

    def restart(self) -> None:
        """Another process: nothing is left of this one but what it wrote."""
        self.service.close()
        self.service = LocalService(Engine(self.paths, self.clock))
        self.reporter = Recorder()

    def apply(self, wanted: DesiredState, **options: object) -> ApplyResult:
        given = ApplyOptions(**{"wait": False, **options})  # type: ignore[arg-type]  # the fields of ApplyOptions
        source = Source(path=Path("/somewhere/banger.yaml"), digest="0" * 64)
        self.clock.time += 1
        return self.service.apply(wanted, source, given, self.reporter, lambda plan: True)

    def plan(self, wanted: DesiredState, **options: object) -> Plan:
        return self.service.plan(wanted, ApplyOptions(**options))  # type: ignore[arg-type]  # the fields of ApplyOptions

    def running(self) -> set[str]:
        return {self.backend.boots[vm_id].label for vm_id in self.backend.table}

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file below the state directory with its modification time in nanoseconds and its content."""
        found = sorted(path for path in self.paths.state.rglob("*") if path.is_file())
        return {str(p.relative_to(self.paths.state)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}

    def _tools(
        self, environment: str, paths: Paths, inventory: Inventory, journal: Journal, shared: daemon_drivers.Shared
    ) -> Tools:
        return Tools(
            environment=environment,
            paths=paths,
            inventory=inventory,
            journal=journal,
            clock=shared.clock,
            backend=self.backend,
            accelerator=lambda vmlinux: TCG,
            ports=shared.ports,
            boots=BootGate(shared.clock, settle=lambda vmm, clock, limit: None),
            helper=shared.helper,
        )

    def _read_links(self, install: str) -> Links:
        return self.helper.read_links(install)  # late: a test may have put another helper there

    def _answers(self, host: str, port: int, timeout: float) -> bool:
        for vm_id in self.backend.table:
            boot = self.backend.boots[vm_id]
            forwards = boot.nic.forwards if boot.nic else ()
            if boot.label in self.silent:
                continue
            if any(host == "127.0.0.1" and f.host_port == port for f in forwards) or str(self._address(vm_id)) == host:
                return True
        return False

    def _address(self, vm_id: str) -> IPv4Address | None:
        rows = Engine(self.paths, self.clock).inventory().vms()
        return next((row.address for row in rows if row.id == vm_id), None)

    def lose_tools(self) -> None:
        """And everything else in the cache."""
        shutil.rmtree(self.paths.cache)

    def _make_tools_disk(self, tools: GuestTools, paths: Paths, progress: Progress) -> None:
        def make(folder: Path, scratch: Path) -> None:
            made = ToolsPaths(folder)
            for file in (made.squashfs, made.manifest):
                file.write_text(str(tools))

        once(paths.tools_disk(tools.id).root, progress, make)

    def _fetch(self, kernel: Kernel, paths: Paths, progress: Progress) -> KernelPaths:
        place = paths.kernel(kernel.id)

        def make(folder: Path, scratch: Path) -> None:
            made = KernelPaths(folder)
            for file in (made.vmlinux, made.modules, made.manifest):
                file.write_text(kernel.source.package)

        once(place.root, progress, make)
        return place

    def _build(self, wanted: Image, paths: Paths, progress: Progress, pack: object) -> None:
        if wanted.name in self.broken_images:
            raise BangerError(f"image {wanted.name} cannot be built")
        wanted = build.resolved(wanted, paths, progress)

        def make(folder: Path, scratch: Path) -> None:
            (folder / "rootfs.squashfs").write_text(wanted.name)
            (folder / "image.json").write_text("{}")

        once(paths.image(wanted.id).root, progress, make)

    def _initramfs(self, kernel: KernelPaths, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "initramfs.cpio"
        file.write_bytes(b"")
        return file


def free_port() -> int:
    """A port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


STOPPED = RunState.STOPPED
