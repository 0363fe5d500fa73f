"""VMs: their disks, their start and their stop."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import signal
from collections.abc import Iterable
from datetime import UTC, datetime

from reconciler.drivers.guest import config as guest_config
from reconciler.drivers.guest import farewell, initramfs, keys, shared, sources
from reconciler.drivers.guest.agent import Agent
from reconciler.drivers.vmm import disks, probe
from reconciler.drivers.vmm.backend import Boot, Disk, Forward, Nic
from reconciler.drivers.vmm.live import who_has
from reconciler.drivers.vmm.probe import Vmm
from reconciler.execute import guests, networks
from reconciler.execute.artifacts import held_artifacts, let_go
from reconciler.execute.ports import choose_ports, forward_of, is_free
from reconciler.execute.tools import Tools
from reconciler.lib.atomic import publish, staging
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import VmPaths
from reconciler.lib.progress import Progress
from reconciler.model.actions import ApproveRemoval, CreateVm, KillStray, PublishPorts, StartVm, StopVm, UpdateVm
from reconciler.model.artifacts import GUEST_TOOLS
from reconciler.model.changes import boot_facts, creation_facts, published
from reconciler.model.ids import host_alias
from reconciler.model.inside import AS_STARTED, env_fact
from reconciler.model.vm import NO_NETWORK, USER_NETWORK, Publication, Vm
from reconciler.store.inventory import VmRow

ORDERLY_SECONDS = 30.0
"""How long a guest may take to shut down before it is made to."""

AGENT_SECONDS = 2.0
"""What a stop waits for an agent, which a guest that still boots has not."""


def row_of(name: str, tools: Tools) -> VmRow:
    """The VM's inventory entry, or an error: an action on a VM that was never recorded is a mistake of ours."""
    row = tools.inventory.vm(tools.environment, name)
    if row is None:
        raise BangerError(f"vm {name} is not in the inventory of environment {tools.environment}")
    return row


def record_creation(action: CreateVm, tools: Tools) -> None:
    """The entry that comes before the disk. A half-made VM of the same entry is made over with its own id."""
    old = tools.inventory.vm(tools.environment, action.name)
    if old and tools.paths.trash_entry(f"{old.environment}.{old.name}.{old.id}").exists():
        old = None  # killed after the disk went to the trash: what is made now is another VM than the one there
    tools.inventory.put_vm(
        VmRow(
            environment=tools.environment,
            name=action.name,
            id=old.id if old else secrets.token_hex(6),
            spec=action.vm,
            created=creation_facts(action.vm),
            booted={},
            address=action.address,
            forwards={},
            created_at=tools.clock.now(),
            started_at=None,
            halted=old.halted if old else None,
            generation=old.generation if old else tools.inventory.generation(tools.environment),
        )
    )


def create(action: CreateVm, tools: Tools, progress: Progress) -> None:
    """Makes the VM's folder: overlay and host key. O(1): the image is shared, the overlay sparse."""
    row = row_of(action.name, tools)
    place = tools.paths.vm(tools.environment, action.name)
    if place.overlay.exists():
        return
    with staging(tools.paths.vms) as folder:
        made = VmPaths(folder / "vm", place.run)
        made.root.mkdir(mode=0o700)
        disks.create_ext4(made.overlay, action.vm.disk, "overlay")
        public = keys.make_host_key(folder / "keys", f"{tools.environment}/{action.name}")
        for half in (made.host_key, made.host_key.with_suffix(".pub")):
            (folder / "keys" / half.name).rename(half)
        made.known_hosts.write_text(keys.known_hosts_line(host_alias(row.id), public))
        if place.root.exists():
            # A folder without its disk is what is left of a VM whose disk was taken away.
            shutil.rmtree(place.root)
        publish(made.root, place.root)


def update(action: UpdateVm, tools: Tools) -> None:
    """Records only: what needs a restart takes effect with the next start."""
    # It was made for the user that the VM had.
    tools.paths.vm(tools.environment, action.name).ssh_entry.unlink(missing_ok=True)
    row = row_of(action.name, tools)
    halted = None if action.release else row.halted
    tools.inventory.put_vm(dataclasses.replace(row, spec=action.vm, address=action.address, halted=halted))


def condemn(action: ApproveRemoval, tools: Tools) -> None:
    """Notes on each VM for which desired state its removal was approved."""
    for name in action.vms:
        row = tools.inventory.vm(tools.environment, name)
        if row is not None:
            tools.inventory.put_vm(dataclasses.replace(row, condemned=action.state))


def record_stop(action: StopVm, tools: Tools) -> None:
    """From here on it counts as stopped by us, whatever ends it and when."""
    row = row_of(action.name, tools)
    halted = action.halt or row.halted
    tools.inventory.put_vm(dataclasses.replace(row, started_at=None, ready_at=None, halted=halted))


def start(action: StartVm, tools: Tools, progress: Progress) -> None:
    """Starts the VMM in its turn; returns when it runs, not when the guest is ready."""
    with held_artifacts(action.vm, tools), tools.boots.boot(progress) as keep_place:
        keep_place(_start(action, tools, progress))


def _start(action: StartVm, tools: Tools, progress: Progress) -> Vmm:
    vm, row = action.vm, row_of(action.name, tools)
    place = tools.paths.vm(tools.environment, action.name)
    image, kernel = tools.paths.image(vm.image_id), tools.paths.kernel(vm.kernel_id)
    guest_tools = tools.paths.tools_disk(GUEST_TOOLS.id).squashfs
    for what, file in (("image", image.squashfs), ("kernel", kernel.vmlinux)):
        if not file.exists():
            raise BangerError(
                f"the {what} that vm {vm.name} was made from is no longer in the cache: {file}",
                hint="apply the file that declares it, or recreate the vm",
            )
    if not guest_tools.exists():
        raise BangerError(
            f"the guest tools are no longer in the cache: {guest_tools}",
            hint="start it again: they are fetched then",
            error_class=ErrorClass.RETRYABLE,
        )
    progress.update(None, "preparing disks")
    _prepare_disks(vm, place, tools)
    boot_image = initramfs.ensure(kernel, tools.paths.initramfs)
    accelerator = tools.accelerator(kernel.vmlinux)
    files = sources.gather(vm.guest_files)
    tap = networks.connect(vm.name, vm.network, action.network.mtu, tools) if vm.bridged and action.network else None
    row = record_start(action, row, tools, files.fact)
    guest_config.write(place.config_disk, guests.tell(vm, action.network, row, tools, files.entries))
    nic = None
    if vm.network == USER_NETWORK or tap:
        nic = Nic(mac=guests.mac(row, tools), tap=tap, forwards=() if tap else _forwards(row, vm.ports))
    place.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    progress.update(None, "starting the VMM")
    boot = Boot(
        install=tools.inventory.install,
        vm_id=row.id,
        label=f"{tools.environment}/{vm.name}",
        cpus=vm.cpus,
        memory=vm.memory,
        vmlinux=kernel.vmlinux,
        initrd=boot_image,
        cmdline="",
        disks=(
            Disk(serial="root", path=image.squashfs, readonly=True),
            Disk(serial="overlay", path=place.overlay, readonly=False),
            Disk(serial="config", path=place.config_disk, readonly=True),
            *([Disk(serial="modules", path=kernel.modules, readonly=True)] if kernel.modules.exists() else []),
            Disk(serial="tools", path=guest_tools, readonly=True),
            *(
                Disk(
                    serial=guest_config.volume_serial(v.name),
                    path=tools.paths.volume(tools.environment, vm.name, v.name),
                    readonly=False,
                )
                for v in vm.volumes
            ),
        ),
        nic=nic,
        paths=place,
    )
    if row.id not in probe.find(boot.install):
        if nic is not None and not tap:
            _require_free(vm, nic.forwards)
        # What an earlier boot left must not be taken for a trace of this one.
        place.pidfile.unlink(missing_ok=True)
        shared.end(place.ssh_shared)
        farewell.mark_start(place.console_log, _utc(tools.clock.now()))
    try:
        return tools.backend.start(boot, accelerator)
    except BaseException:
        # It did not end: it never was.
        tools.inventory.put_vm(dataclasses.replace(row, started_at=None))
        raise


def record_start(action: StartVm, row: VmRow, tools: Tools, files: str = "") -> VmRow:
    """What the VMM is about to be told, recorded before it is: a running VMM is compared with it later.

    `files` is the fact of those that the guest finds at its start. Whether it took them is seen once it can be entered.
    """
    vm = action.vm
    told = boot_facts(vm, action.network, action.address)
    if files:
        told["files"] = files if vm.network == NO_NETWORK else AS_STARTED
    if env := env_fact(vm.env):
        told["env"] = env
    with tools.ports:
        forwards: dict[str, int] = {}
        if vm.network == USER_NETWORK:
            wanted = [22, *([vm.ready.port] if vm.ready.port not in (None, 22) else [])]
            forwards = choose_ports([str(port) for port in wanted], row.forwards, tools.inventory.taken_ports())
        row = dataclasses.replace(
            row,
            spec=vm,
            booted=told,
            address=action.address,
            forwards=forwards,
            started_at=tools.clock.now(),
            ready_at=None,
            halted=None,
        )
        tools.inventory.put_vm(row)
    return row


def stop(action: StopVm, tools: Tools, progress: Progress) -> None:
    """Orderly within a deadline, then firm (I12): the agent is asked first, then the power button is pressed."""
    row = row_of(action.name, tools)
    place = tools.paths.vm(tools.environment, action.name)
    vmm = probe.find(tools.inventory.install).get(row.id)
    if vmm is not None and action.kill:
        tools.backend.kill(vmm)
    elif vmm is not None:
        progress.update(None, "asking the guest to shut down")
        # Whether it answers or not: a second request changes nothing, and this one may be for an agent that hangs.
        Agent(place).shut_down(AGENT_SECONDS)
        tools.backend.stop(place, vmm, ORDERLY_SECONDS, progress)
    shared.end(place.ssh_shared)
    let_go(row.spec, tools)
    shutil.rmtree(place.run, ignore_errors=True)


def publish_ports(action: PublishPorts, tools: Tools, progress: Progress) -> None:
    """Tells the VMM, then records that it was told. One that has ended meanwhile is told with its next start."""
    row = row_of(action.name, tools)
    if row.id not in probe.find(tools.inventory.install):
        return
    place = tools.paths.vm(tools.environment, action.name)
    tools.backend.forward(place, frozenset(_forwards(row, action.ports)))
    booted = {key: value for key, value in row.booted.items() if key != "ports"}
    if action.ports:
        booted["ports"] = published(action.ports)
    tools.inventory.put_vm(dataclasses.replace(row, booted=booted))


def _forwards(row: VmRow, ports: Iterable[Publication]) -> tuple[Forward, ...]:
    """Those that banger itself needs to reach the guest, and those that are published."""
    own = [Forward(host_port=host, guest_port=int(guest)) for guest, host in row.forwards.items()]
    return (*own, *(forward_of(port) for port in ports))


def _require_free(vm: Vm, forwards: Iterable[Forward]) -> None:
    """Raises BangerError (retryable) for a port that somebody has: the VMM's own words would not say which."""
    for forward in forwards:
        if not is_free(forward):
            raise BangerError(
                f"{forward.protocol} port {forward.host_port} of {forward.address}, which vm {vm.name} publishes, is taken",
                hint=who_has(forward),
                error_class=ErrorClass.RETRYABLE,
            )


def kill_stray(action: KillStray, tools: Tools, progress: Progress) -> None:
    """Only the process that still bears our stamp and that id: a pid may have a new owner by now."""
    vmm = probe.find(tools.inventory.install).get(action.name)
    descriptor = probe.pidfd(vmm) if vmm is not None and vmm.pid == action.pid else None
    if descriptor is not None:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _prepare_disks(vm: Vm, place: VmPaths, tools: Tools) -> None:
    disks.grow_ext4(place.overlay, vm.disk)
    for volume in vm.volumes:
        path = tools.paths.volume(tools.environment, vm.name, volume.name)
        if path.exists():
            disks.grow_ext4(path, volume.size)
            continue
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with staging(tools.paths.volumes) as folder:
            disks.create_ext4(folder / "volume", volume.size, volume.name)
            publish(folder / "volume", path)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
