"""The trash: where VMs go instead of being deleted, and the way back (I12).

An entry is one folder `<state>/trash/<environment>.<vm>.<id>` with the VM's own folder in `vm/`, perhaps
`volumes/`, and `entry.json`, which says all that is needed to bring it back.
"""

from __future__ import annotations

import json
import shutil
from ipaddress import IPv4Address
from pathlib import Path

from reconciler.drivers.cache.trash import Manifest, entries
from reconciler.drivers.guest import shared
from reconciler.execute.artifacts import let_go
from reconciler.execute.tools import Tools
from reconciler.lib.atomic import move, publish, staging, write_atomic
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress
from reconciler.model.actions import ForgetEnvironment, RestoreVm, TrashVm, TrashVolumes
from reconciler.model.addressing import allocate
from reconciler.model.codec import to_json
from reconciler.model.vm import Vm
from reconciler.store.inventory import VmRow


def trash_vm(action: TrashVm, tools: Tools, progress: Progress) -> None:
    """Moves a stopped VM aside by renames; each step may have been done already by a run that was killed."""
    row = tools.inventory.vm(tools.environment, action.name)
    if row is None:
        return
    place = tools.paths.vm(tools.environment, action.name)
    entry = tools.paths.trash_entry(f"{row.environment}.{row.name}.{row.id}")
    if place.root.exists():
        manifest = Manifest(
            environment=row.environment,
            name=row.name,
            id=row.id,
            trashed_at=tools.clock.now(),
            vm=row.spec,
            created=row.created,
            address=row.address,
            created_at=row.created_at,
        )
        _open_entry(entry, manifest)
        move(place.root, entry / "vm")
        let_go(row.spec, tools)
    if action.with_volumes:
        _move(tools.paths.volumes / tools.environment / action.name, entry / "volumes")
    shared.end(place.ssh_shared)
    shutil.rmtree(place.run, ignore_errors=True)
    tools.inventory.drop_vm(tools.environment, action.name)


def trash_volumes(action: TrashVolumes, tools: Tools, progress: Progress) -> None:
    folder = tools.paths.volumes / tools.environment / action.name
    if folder.exists():
        now = tools.clock.now()
        entry = tools.paths.trash_entry(f"{tools.environment}.{action.name}.volumes-{int(now * 1000):x}")
        _open_entry(entry, Manifest(environment=tools.environment, name=action.name, id="", trashed_at=now))
        _move(folder, entry / "volumes")


def forget(action: ForgetEnvironment, tools: Tools, progress: Progress) -> None:
    """Removes the environment's own folders, if nothing is in them any more.

    Only here, where no other step runs: beside one, a folder could go between its making and its use.
    """
    run = tools.paths.vm(action.name, "any").run.parent
    drop_empty(tools.paths.vms / action.name, run, tools.paths.volumes / action.name)


def record_restoration(action: RestoreVm, tools: Tools) -> None:
    """The entry that comes before the disk is back."""
    manifest = read_entry(action.entry, tools.paths)
    if manifest.vm is None:
        raise UsageError(f"trash entry {action.entry} holds volumes only, no vm")
    if tools.inventory.vm(tools.environment, action.name) is not None:
        return
    _refuse_second_volumes(action, tools)
    tools.inventory.put_vm(
        VmRow(
            environment=tools.environment,
            name=action.name,
            id=manifest.id,
            spec=manifest.vm,
            created=manifest.created or {},
            booted={},
            address=_address(manifest.vm, manifest.address, tools),
            forwards={},
            created_at=manifest.created_at,
            started_at=None,
        )
    )


def _address(vm: Vm, address: IPv4Address | None, tools: Tools) -> IPv4Address | None:
    """The address that the VM had, or another one if it was given away meanwhile."""
    others = [row for row in tools.inventory.vms(tools.environment) if row.spec.network == vm.network]
    user = next((row.name for row in others if row.address == address), None)
    network = tools.inventory.networks(tools.environment).get(vm.network)
    if address is None or network is None or (user is None and address in network.cidr):
        return address
    if user is not None and vm.address == address:
        raise UsageError(
            f"the address {address} of vm {vm.name} belongs to vm {user} now", hint=f"trash vm {user} first"
        )
    held = {row.name: row.address for row in others if row.address is not None}
    given, _ = allocate(network, [vm], held)
    if vm.name not in given:
        raise BangerError(f"network {vm.network} has no free address for vm {vm.name}")
    return given[vm.name]


def _refuse_second_volumes(action: RestoreVm, tools: Tools) -> None:
    volumes = tools.paths.volumes / tools.environment / action.name
    trashed = tools.paths.trash_entry(action.entry) / "volumes"
    if trashed.exists() and volumes.exists():
        raise BangerError(
            f"volumes of {action.name} exist, and the trash entry holds others",
            hint=f"move one of them away: {volumes} or {trashed}",
        )


def restore_vm(action: RestoreVm, tools: Tools, progress: Progress) -> None:
    """The renames of `trash_vm`, backwards. Volumes that are in use again are not replaced."""
    entry = tools.paths.trash_entry(action.entry)
    place = tools.paths.vm(tools.environment, action.name)
    volumes = tools.paths.volumes / tools.environment / action.name
    _refuse_second_volumes(action, tools)
    _move(entry / "volumes", volumes)
    if (entry / "vm").exists():
        place.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        move(entry / "vm", place.root)
    if entry.exists():
        # Aside before it is taken apart: killed in between, it is no entry without a name that nobody ever removes.
        with staging(tools.paths.trash) as folder:
            move(entry, folder / "entry")


def read_entry(name: str, paths: Paths) -> Manifest:
    """Raises UsageError if there is no such entry."""
    for entry, manifest in entries(paths):
        if entry == name:
            return manifest
    raise UsageError(f"there is no trash entry {name}", hint="banger vm trash lists them")


def drop_empty(*folders: Path) -> None:
    """Removes folders that hold nothing any more."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            continue


def _open_entry(entry: Path, manifest: Manifest) -> None:
    if entry.exists():
        write_atomic(entry / "entry.json", json.dumps(to_json(manifest)).encode())
        return
    with staging(entry.parent) as folder:
        made = folder / "entry"
        made.mkdir(mode=0o700)
        (made / "entry.json").write_text(json.dumps(to_json(manifest)))
        publish(made, entry)


def _move(source: Path, destination: Path) -> None:
    if source.exists():
        destination.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        move(source, destination)
