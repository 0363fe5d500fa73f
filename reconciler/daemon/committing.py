"""An image of a VM's disk: what its user made of it, on top of what it was made from.

It is kept in the state directory, under its name and its hash: it is a user's work, which no cache may forget. Files of
before stay where they are. The VM is only read, and does not start meanwhile.
"""

from __future__ import annotations

import hashlib

from reconciler.api.service import Committed, Reporter, VmRef
from reconciler.daemon.drivers import real_packer
from reconciler.daemon.engine import Engine
from reconciler.drivers.images.packing import Job, JobKind
from reconciler.drivers.vmm import probe
from reconciler.lib.atomic import publish, staging
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.artifacts import FROM_IMAGE


def commit(engine: Engine, ref: VmRef, image: str, reporter: Reporter) -> Committed:
    """Packs the disk of a stopped VM into a squashfs.

    Raises UsageError if the VM runs; BangerError if its image is no longer in the cache, or packing fails.
    """
    paths = engine.paths
    with engine.writing(reporter.note, ref.environment, frozenset({f"vm/{ref.name}"})):
        inventory = engine.inventory()
        row = inventory.vm(ref.environment, ref.name)
        if row is None:
            raise UsageError(f"there is no vm {ref}")
        if row.id in probe.find(inventory.install):
            raise UsageError(f"vm {ref} runs, and its disk changes", hint=f"banger vm stop {ref.name}")
        base, overlay = paths.image(row.spec.image_id).squashfs, paths.vm(ref.environment, ref.name).overlay
        for what, file in (("image", base), ("disk", overlay)):
            if not file.is_file():
                raise BangerError(f"the {what} of vm {ref} is not there: {file}", hint="banger apply")
        with staging(paths.committed) as folder:
            (folder / "tmp").mkdir()
            squashfs = folder / "image"
            job = Job(kind=JobKind.VM, root=base, overlay=overlay)
            real_packer(paths)(job, squashfs, folder / "tmp", _Noted(reporter))
            with squashfs.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            place = paths.committed / f"{image}-{digest[:12]}.squashfs"
            publish(squashfs, place)
    # An image that boots by its own kernel lends it its name.
    kernel = FROM_IMAGE if row.spec.kernel == row.spec.image else row.spec.kernel
    return Committed(path=place, sha256=digest, size=place.stat().st_size, kernel=kernel)


class _Noted:
    """Progress as notes: each message once."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._last = ""

    def update(self, fraction: float | None, message: str) -> None:
        if message != self._last:
            self._reporter.note(message)
        self._last = message
