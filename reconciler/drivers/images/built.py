"""Images built on others: steps that run in a guest, over the image that they start from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from reconciler.drivers.images.packing import Job, JobKind, JobStep, Workshop
from reconciler.lib.bootstrap import SOURCE_DATE_EPOCH
from reconciler.lib.download import download
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import ImagePaths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.units import GIB
from reconciler.model.artifacts import IMAGE_RECIPE, BuildStep, BuiltImage, CopyStep
from reconciler.model.codec import to_json

MAX_COPY = 1 * GIB


def make(
    source: BuiltImage, target: ImagePaths, scratch: Path, progress: Progress, workshop: Workshop
) -> dict[str, object]:
    """Makes the squashfs of `target`. Returns what its manifest is to say of it besides.

    Raises BangerError: if the image that it is built on is not there, or a step fails, with what it said.
    """
    base = workshop.paths.image(source.base)
    if not base.squashfs.is_file():
        raise BangerError(
            f"the image {source.base}, which this one is built on, is not in the cache", hint="banger apply"
        )
    steps = tuple(_step(step, scratch / f"copy-{number}", progress) for number, step in enumerate(source.steps))
    job = Job(kind=JobKind.BUILD, root=base.squashfs, steps=steps)
    workshop.pack(job, target.squashfs, scratch, Share(progress, 0.97))
    return {"inputs": {"recipe": IMAGE_RECIPE, **to_json(source)}}


def _step(step: BuildStep, file: Path, progress: Progress) -> JobStep:
    if not isinstance(step, CopyStep):
        return JobStep(str(step), "run", step.script.encode())
    content = (step.content or "").encode()
    if step.blob is not None:
        download(step.blob.url, step.blob.sha256, file, Share(progress, 0.0), limit=MAX_COPY)
        content = file.read_bytes()
        file.unlink()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(step.to.lstrip("/"))
        entry.size, entry.mode, entry.mtime = len(content), int(step.mode, 8), SOURCE_DATE_EPOCH
        archive.addfile(entry, io.BytesIO(content))
    return JobStep(str(step), "tar", raw.getvalue())
