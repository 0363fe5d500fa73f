"""Images that are made in a guest, because what they come from is nothing that the host should read, or run.

Here is what such a guest is asked for. Who asks gets something to call; `execute.making` is what that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress


class JobKind(StrEnum):
    """What the guest does before it packs."""

    DISK = "disk"
    """It looks for the root file system on a disk."""
    VM = "vm"
    """It puts a VM's own disk over its image."""
    BUILD = "build"
    """It runs steps over an image."""


@dataclass(frozen=True, slots=True)
class JobStep:
    """A script (`run`) for the image's shell, or a tar that is unpacked in it (`tar`)."""

    title: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image.

    Parameters
    ----------
    root: the disk of JobKind.DISK, else a squashfs. It is not written.
    format: of that disk, `raw` or `qcow2`.
    overlay: the disk of a VM, for JobKind.VM. It is not written.
    """

    kind: JobKind
    root: Path
    format: str = "raw"
    overlay: Path | None = None
    steps: tuple[JobStep, ...] = ()


Pack = Callable[[Job, Path, Path, Progress], None]
"""Makes a squashfs of a job, with a scratch folder that goes. Raises BangerError."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What making an image may need besides its source: other images, and a guest to make it in."""

    paths: Paths
    pack: Pack


def unavailable(job: Job, squashfs: Path, scratch: Path, progress: Progress) -> None:
    """For who makes only images that need no guest."""
    raise BangerError("this image is made in a guest, and there is nothing to start one")
