"""The kernel that a package has put into an image, read file by file: the image's tree is never unpacked."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reconciler.drivers.kernels.extract import MAX_VMLINUX, vmlinux
from reconciler.drivers.kernels.modules import ModuleIndex
from reconciler.drivers.kernels.parts import Modules, Parts
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress
from reconciler.lib.run import CommandError, pipeline, require, run
from reconciler.lib.units import MIB
from reconciler.model.artifacts import ImageKernel

_MAX_INDEX = 64 * MIB
_LISTED = re.compile(r"-\S+ \S+ +\d+ \S+ \S+ boot/vmlinuz-([A-Za-z0-9._+~-]+)")
_HINT = "install one in it, such as the package linux-image-cloud-amd64, or name one of `kernels`"


def obtain(source: ImageKernel, paths: Paths, scratch: Path, progress: Progress) -> Parts:
    """Raises BangerError if the image is not built, or has no kernel, several, or one without an index of modules."""
    require("unsquashfs", "squashfs-tools")
    squashfs = paths.image(source.image).squashfs
    if not squashfs.is_file():
        raise BangerError(f"the image {source.image}, whose kernel this is, is not in the cache", hint="banger apply")
    progress.update(0.1, "looking for the kernel")
    release = _only_release(squashfs)

    def read(path: str, limit: int = MAX_VMLINUX) -> bytes:
        return _cat(squashfs, path, scratch / "file", limit)

    def text(path: str) -> str:
        try:
            return read(path, _MAX_INDEX).decode("utf-8", "replace")
        except CommandError:
            return ""

    progress.update(0.3, "unpacking the kernel")
    elf = vmlinux(read(f"boot/vmlinuz-{release}"))
    config = text(f"boot/config-{release}") or None
    for folder in (f"usr/lib/modules/{release}", f"lib/modules/{release}"):
        if dep := text(f"{folder}/modules.dep"):
            names = ("builtin", "softdep", "alias")
            index = ModuleIndex.parse(dep, *(text(f"{folder}/modules.{name}") for name in names))
            return Parts(elf=elf, config=config, modules=Modules(release, index, partial(_within, read, folder), None))
    return Parts(elf=elf, config=config)


def _within(read: Callable[[str], bytes], folder: str, path: str) -> bytes:
    return read(f"{folder}/{path}")


def _only_release(squashfs: Path) -> str:
    listing = run(["unsquashfs", "-lln", "-d", "", squashfs, "boot"], check=False).stdout.decode("utf-8", "replace")
    found = [match[1] for line in listing.splitlines() if (match := _LISTED.fullmatch(line.replace(" /boot", " boot")))]
    if len(found) != 1:
        what = f"has {len(found)} kernels: {', '.join(sorted(found)[:8])}" if found else "has no /boot/vmlinuz-RELEASE"
        raise BangerError(f"the image {what}", hint=_HINT)
    return found[0]


def _cat(squashfs: Path, path: str, into: Path, limit: int) -> bytes:
    """One regular file of the image; CommandError if it is not there, or has more than `limit` bytes."""
    pipeline([["unsquashfs", "-no-progress", "-cat", squashfs, path], ["head", "-c", str(limit)]], output=into)
    try:
        return into.read_bytes()
    finally:
        into.unlink()
