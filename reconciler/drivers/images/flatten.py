"""Layers of a container image, flattened into one read-only squashfs.

Two sandboxes with a pipe between them: one reads the layers and writes a tar of what they make together (`layers`), the
other is sqfstar(1), which can write one folder. No path of a layer is ever given to the host's file system, and owners and
devices need no root. An image that breaks a rule is refused as a whole, and nothing stays of it. docs/layers.md tells
the rules.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reconciler.drivers.images.layers import child
from reconciler.drivers.images.layers.blobs import Encoding
from reconciler.drivers.images.sandbox import HINT, Bounds, boxed, interpreter
from reconciler.drivers.images.squashfs import DRAINED, SQFSTAR
from reconciler.lib.errors import BangerError
from reconciler.lib.progress import Progress
from reconciler.lib.run import CommandError, pipeline, require
from reconciler.lib.units import GIB, MIB

MEDIA_TYPES = {
    "application/vnd.oci.image.layer.v1.tar": Encoding.PLAIN,
    "application/vnd.oci.image.layer.v1.tar+gzip": Encoding.GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd": Encoding.ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": Encoding.PLAIN,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": Encoding.GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": Encoding.ZSTD,
}
"""Layers that can be flattened. Others are those that may not be distributed, whose bytes are somewhere else."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LAYERS = 500
_QUEUES = 64 * MIB
# sqfstar 4.5 takes the root folder's mode from its options only, and makes it its own user's as of now. So it is called 0,
# and told that it is not later than the newest entry: the same layers make the same bytes.
_SCRIPT = f'IFS=" " read -r mode newest && SOURCE_DATE_EPOCH="$newest" "$@" -root-mode "$mode" "$0" && {DRAINED}'


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as its descriptor has it (image specification, "OCI Content Descriptors").

    Parameters
    ----------
    path: where its bytes are.
    diff_id: the digest of its uncompressed bytes by the image's configuration, or None if nothing says it.
    """

    path: Path
    media_type: str
    digest: str
    size: int
    diff_id: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may take.

    Parameters
    ----------
    bytes: of all its layers, unpacked.
    entries: of all its layers, and of the folders on the way to them.
    memory: bytes that each of the two processes may have.
    seconds: of processor time for each GiB, or part of one, that its layers have as they come. So a busy host refuses
        nothing that an idle one takes.
    """

    bytes: int = 20 * GIB
    entries: int = 1_000_000
    memory: int = 256 * MIB
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Flattened:
    """What an image came to.

    Parameters
    ----------
    entries: of all layers, those that are hidden by others included.
    bytes: of all layers, unpacked.
    warnings: what is in the image otherwise than in its layers, or may surprise.
    """

    entries: int
    bytes: int
    warnings: tuple[str, ...]


@dataclass
class _Report:
    """What the reader of the layers told."""

    warnings: list[str] = field(default_factory=list)
    refused: str | None = None
    done: dict[str, int] | None = None


def media_type(path: Path) -> str:
    """The media type of a tar that comes without one, by its first bytes. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    packed = (encoding for encoding in (Encoding.GZIP, Encoding.ZSTD) if start.startswith(encoding.magic))
    encoding = next(packed, Encoding.PLAIN)
    return next(name for name, known in MEDIA_TYPES.items() if known is encoding)


def flatten(
    layers: Sequence[Layer], squashfs: Path, scratch: Path, progress: Progress, limits: Limits | None = None
) -> Flattened:
    """Merges layers, the lowest first, into a new squashfs.

    Parameters
    ----------
    squashfs: the file to make; if this fails there is none.
    scratch: a folder for small files, which stay.

    Raises BangerError: terminal if the image is refused, with the layer and the entry that are to blame.
    """
    limits = limits or Limits()
    require("sqfstar", "squashfs-tools")
    if squashfs.exists():
        raise BangerError(f"{squashfs} exists already")
    job = _job(layers, limits)
    path = scratch / "flatten.json"
    path.write_text(json.dumps(job))
    report = _Report()

    def listen(line: str) -> None:
        try:
            match json.loads(line):
                case {"progress": int() | float() as fraction}:
                    progress.update(min(1.0, fraction), "flattening the layers")
                case {"warning": str(text)}:
                    report.warnings.append(text)
                case {"refused": str(text)}:
                    report.refused = text
                case {"done": {"entries": int(), "bytes": int()} as done}:
                    report.done = done
        except ValueError:
            pass  # sqfstar's words, which a failure shows

    try:
        pipeline([_reading(layers, path, job, limits), _packing(squashfs, job, limits)], on_line=listen)
        if report.done is None:
            raise BangerError("the layers were not read to their end", hint="look for what was killed: dmesg")
    except BaseException as problem:
        squashfs.unlink(missing_ok=True)
        if report.refused:
            raise BangerError(report.refused, hint=_hint(report.refused)) from None
        if isinstance(problem, CommandError):
            raise _explained(problem) from problem
        raise
    return Flattened(report.done["entries"], report.done["bytes"], tuple(report.warnings))


def _job(layers: Sequence[Layer], limits: Limits) -> dict[str, object]:
    """What the reader is asked for. Raises BangerError for descriptors that cannot be right."""
    if not 0 < len(layers) <= _MOST_LAYERS:
        raise BangerError(f"the image is refused: it has {len(layers)} layers; 1 to {_MOST_LAYERS} are possible")
    total = 0
    jobs = []
    for index, layer in enumerate(layers, 1):
        encoding = MEDIA_TYPES.get(layer.media_type)
        fault = None
        if encoding is None:
            fault = f"has the media type {layer.media_type!r}, which is no layer that can be flattened"
        elif not _DIGEST.fullmatch(layer.digest) or not (layer.diff_id is None or _DIGEST.fullmatch(layer.diff_id)):
            fault = f"has the digest {layer.digest!r} and the diff id {layer.diff_id!r}; both have to be sha256"
        elif not layer.path.is_file():
            fault = f"is not at {layer.path}"
        elif layer.size != (found := layer.path.stat().st_size):
            fault = f"has {found} bytes, and not the {layer.size} of its descriptor"
        if fault:
            raise BangerError(f"the image is refused: layer {index} of {len(layers)} {fault}")
        total += layer.size
        jobs.append({**asdict(layer), "path": _inside(index), "encoding": encoding})
    seconds = limits.seconds * max(1, -(-total // GIB))
    return {"layers": jobs, "bytes": limits.bytes, "entries": limits.entries, "seconds": seconds}


def _inside(index: int) -> str:
    return f"/layers/{index}"


def _bounds(job: dict[str, object], limits: Limits, file: int) -> Bounds:
    # The reader has a clock of its own; this is for one that does not hear it, and for the packer.
    seconds = job["seconds"]
    assert isinstance(seconds, float)
    return Bounds(limits.memory, int(2 * seconds) + 5, file)


def _reading(layers: Sequence[Layer], path: Path, job: dict[str, object], limits: Limits) -> list[str]:
    readable = {path.resolve(): "/job.json"} | {layer.path.resolve(): _inside(i) for i, layer in enumerate(layers, 1)}
    argv = [*interpreter(), "-m", child.__name__, "/job.json"]
    return boxed(argv, _bounds(job, limits, 0), readable=readable, python=True)


def _packing(squashfs: Path, job: dict[str, object], limits: Limits) -> list[str]:
    processors = min(4, os.cpu_count() or 1)  # each is a thread with a stack, and nothing is compressed
    # Inodes and folders come on top of the content.
    bounds = _bounds(job, limits, limits.bytes + limits.entries * 512 + MIB)
    queues = min(_QUEUES, limits.memory // 4) // MIB
    options = ("-processors", str(processors), "-mem", f"{queues}M")
    argv = ["sh", "-c", _SCRIPT, f"/out/{squashfs.name}", *SQFSTAR, *options]
    return boxed(argv, bounds, writable={squashfs.parent.resolve(): "/out"}, root=True)


def _hint(refused: str) -> str | None:
    return "docs/layers.md tells what images may not have, and why" if "refused" in refused else None


def _explained(problem: CommandError) -> BangerError:
    said = problem.output.strip()
    if "No space left on device" in said:
        return BangerError("no space left on the disk of the cache", hint="banger cache plan shows what could go")
    if said.startswith("bwrap: "):
        return BangerError(
            f"this host does not allow a sandbox: {said.removeprefix('bwrap: ')}",
            hint=HINT,
            replay="bwrap --unshare-all --ro-bind / / true",
        )
    # 139 is a segmentation fault: a thread that found no memory for its stack.
    if "Out of memory" in said or problem.returncode in (139, -signal.SIGSEGV):
        return BangerError("the image is refused: packing it takes more memory than it may", replay=problem.replay)
    return problem
