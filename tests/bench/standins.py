"""Homes full of VMs that need nothing: their records, their disks, and a process for each that shows itself as a VMM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.lib.paths import Paths
from reconciler.model.changes import boot_facts, creation_facts
from reconciler.model.desired import DesiredState
from reconciler.model.vm import Vm
from reconciler.spec import load_file
from reconciler.store.db import Database
from reconciler.store.inventory import EnvironmentRow, Inventory, VmRow
from tests.host.home import Home, bare

_LARGEST_COUNT = 256
"""Of one entry of the file: schemas/banger.schema.json."""


@contextmanager
def populated(root: Path, count: int) -> Iterator[Home]:
    """A home whose file asks for `count` VMs without a network, all of which are there, run, and were seen ready."""
    cache = root / "cache"
    cache.mkdir()
    home = Home(root / "home", cache, "demo")
    groups = [min(_LARGEST_COUNT, count - done) for done in range(0, count, _LARGEST_COUNT)]
    home.write({f"group{number}": {**bare(), "count": size} for number, size in enumerate(groups)})
    loaded = load_file(home.file)
    paths = Paths.discover({"BANGER_HOME": str(home.root)})
    _publish(loaded.desired, paths)
    database = Database(paths.database, create=True)
    inventory = Inventory(database)
    with database.transaction():
        inventory.put_environment(
            EnvironmentRow(
                name=loaded.desired.environment,
                source=str(home.file),
                digest=loaded.digest,
                desired=loaded.desired,
                applied_at=1.0,
            )
        )
        for number, spec in enumerate(loaded.desired.vms.values()):
            inventory.put_vm(_row(loaded.desired.environment, spec, f"{number:012x}"))
            place = paths.vm(loaded.desired.environment, spec.name)
            place.overlay.parent.mkdir(parents=True)
            place.overlay.touch()
            place.run.mkdir(parents=True)
            place.pidfile.touch()
    install = inventory.install
    database.close()
    with _processes([f"guest=banger.{install}.{number:012x}" for number in range(count)]):
        yield home


def _publish(desired: DesiredState, paths: Paths) -> None:
    """Artifacts that are there, as far as a look at the cache can tell."""
    for manifest in (
        *(paths.image(image.id).manifest for image in desired.images.values()),
        *(paths.kernel(kernel.id).manifest for kernel in desired.kernels.values()),
    ):
        manifest.parent.mkdir(parents=True)
        manifest.touch()


def _row(environment: str, spec: Vm, vm_id: str) -> VmRow:
    return VmRow(
        environment=environment,
        name=spec.name,
        id=vm_id,
        spec=spec,
        created=creation_facts(spec),
        booted=boot_facts(spec, None, None),
        address=None,
        forwards={},
        created_at=1.0,
        started_at=2.0,
        ready_at=3.0,
    )


@contextmanager
def _processes(stamps: list[str]) -> Iterator[None]:
    """Processes named as VMMs are. They end when the pipe that they read does, at the latest with this one."""
    read, write = os.pipe()
    children = []
    try:
        for stamp in stamps:
            # The shell takes what follows its script for parameters: the kernel shows a VMM's command line.
            disguise = ["qemu-system-x86_64", "-c", "read line", "-name", stamp]
            children.append(subprocess.Popen(disguise, executable="/bin/sh", stdin=read))
        yield
    finally:
        os.close(read)
        os.close(write)
        for child in children:
            child.wait()
