"""A kernel of any source, published once: its ELF, the modules that its initramfs loads, and all of them for the guest."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.drivers.kernels import debian, in_image, requirements, url
from reconciler.drivers.kernels.modules import module_name, plain_module
from reconciler.drivers.kernels.parts import Modules, Parts
from reconciler.lib import builder
from reconciler.lib.bootstrap import SOURCE_DATE_EPOCH
from reconciler.lib.once import once
from reconciler.lib.paths import KernelPaths, Paths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.run import require, run
from reconciler.model.artifacts import KERNEL_RECIPE, DebianKernel, ImageKernel, Kernel, UrlKernel
from reconciler.model.codec import to_json

Obtain = Callable[[Any, Paths, Path, Progress], Parts]
"""Brings the parts of a kernel together, with a scratch folder that goes."""

_OBTAIN: Mapping[type, Obtain] = {
    DebianKernel: debian.obtain,
    UrlKernel: url.obtain,
    ImageKernel: in_image.obtain,
}


def fetch(kernel: Kernel, paths: Paths, progress: Progress) -> None:
    """Fetches a kernel and publishes it at `paths.kernel(kernel.id)`, unless it is there.

    Parameters
    ----------
    progress: gets the fraction of the whole work.

    Raises BangerError: retryable if what it comes from did not answer, else terminal.
    """
    target = paths.kernel(kernel.id).root
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "kernel", to_json(kernel), progress)
    else:
        once(target, progress, lambda folder, scratch: _fetch(kernel, KernelPaths(folder), paths, scratch, progress))


def _fetch(kernel: Kernel, target: KernelPaths, paths: Paths, scratch: Path, progress: Progress) -> None:
    for program, package in (("depmod", "kmod"), ("mksquashfs", "squashfs-tools")):
        require(program, package)
    parts = _OBTAIN[type(kernel.source)](kernel.source, paths, scratch, Share(progress, 0.85))
    progress.update(0.85, "checking the kernel")
    text = parts.config or requirements.own_config(parts.elf)
    modules = parts.modules
    requirements.check(parts.elf, requirements.parse_config(text) if text else None, modules.index if modules else None)
    target.vmlinux.write_bytes(parts.elf)
    target.early_modules.mkdir()
    early = _place_early(modules, target.early_modules) if modules else []
    if modules and modules.folder:
        progress.update(0.9, "packing its modules")
        _pack(modules.folder, target.modules)
    release = modules.release if modules else requirements.release_of(parts.elf)
    manifest = _manifest(kernel, release, early, target, checked=text is not None)
    target.manifest.write_text(json.dumps(manifest, indent=2) + "\n")


def _place_early(modules: Modules, into: Path) -> list[str]:
    order = requirements.early(modules.index)
    for number, path in enumerate(order):
        (into / f"{number:02}-{module_name(path)}.ko").write_bytes(plain_module(path, modules.read(path)))
    return [module_name(path) for path in order]


def _pack(top: Path, squashfs: Path) -> None:
    """Mounted at /lib/modules, it gives /lib/modules/<release>. Uncompressed, like the images."""
    # mksquashfs takes the stamps' ceiling and its own creation time from SOURCE_DATE_EPOCH.
    run(
        [
            *("mksquashfs", top, squashfs, "-all-root", "-noI", "-noD", "-noF", "-noX", "-no-xattrs"),
            *("-quiet", "-no-progress", "-exit-on-error", "-mem", "512M"),
        ],
        env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    )
    squashfs.chmod(0o644)


def _manifest(
    kernel: Kernel, release: str | None, early: list[str], target: KernelPaths, *, checked: bool
) -> dict[str, object]:
    def described(path: Path) -> dict[str, object]:
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}

    return {
        "apiVersion": "banger/v1",
        "kind": "kernel",
        "id": kernel.id,
        "inputs": {"recipe": KERNEL_RECIPE, **to_json(kernel.source)},
        "release": release,
        "vmlinux": described(target.vmlinux),
        "modules": described(target.modules) if target.modules.exists() else None,
        "early": early,
        # Whether its configuration was known, so that every option was looked at.
        "configurationChecked": checked,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
