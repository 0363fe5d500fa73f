"""Kernels from Debian packages: unpacked, never installed."""

from __future__ import annotations

import datetime
import hashlib
import json
import shlex
from pathlib import Path

from reconciler.drivers.kernels.extract import vmlinux
from reconciler.drivers.kernels.modules import EARLY, ModuleIndex, module_name, plain_module
from reconciler.lib import builder
from reconciler.lib.bootstrap import SOURCE_DATE_EPOCH, Bootstrap, Variant, bootstrap
from reconciler.lib.errors import BangerError
from reconciler.lib.once import once
from reconciler.lib.paths import KernelPaths, Paths
from reconciler.lib.progress import Progress
from reconciler.lib.run import require, run
from reconciler.model.artifacts import KERNEL_RECIPE, Kernel
from reconciler.model.codec import to_json

# Newer releases have the modules below usr/. -L would follow a link out of the tree; these are folders.
_COPY = (
    "for part in boot lib/modules usr/lib/modules; do "
    'if [ -d "$1/$part" ] && [ ! -L "$1/$part" ]; then cp -R --no-dereference --preserve=timestamps "$1/$part" {into}; fi; '
    "done"
)


class _Part:
    """The first part of the whole work, seen as a whole by who does it."""

    def __init__(self, whole: Progress, share: float) -> None:
        self._whole = whole
        self._share = share

    def update(self, fraction: float | None, message: str) -> None:
        self._whole.update(None if fraction is None else fraction * self._share, message)


def fetch(kernel: Kernel, paths: Paths, progress: Progress) -> None:
    """Fetches a kernel and publishes it at `paths.kernel(kernel.id)`, unless it is there.

    Parameters
    ----------
    progress: gets the fraction of the whole work.

    Raises BangerError: retryable if the mirror did not answer, else terminal.
    """
    target = paths.kernel(kernel.id).root
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "kernel", to_json(kernel), progress)
    else:
        once(target, progress, lambda folder, scratch: _fetch(kernel, folder, scratch, progress))


def _fetch(kernel: Kernel, folder: Path, scratch: Path, progress: Progress) -> None:
    for program, package in (("depmod", "kmod"), ("mksquashfs", "squashfs-tools")):
        require(program, package)
    source = kernel.source
    tree = scratch / "tree"
    tree.mkdir()
    hook = _COPY.format(into=shlex.quote(str(tree)))
    wanted = Bootstrap(suite=source.suite, packages=(source.package,), variant=Variant.EXTRACT, hooks=(hook,))
    bootstrap(wanted, scratch, _Part(progress, 0.8))

    image, release = only_kernel(tree, source.package)
    target = KernelPaths(folder)
    progress.update(0.8, "unpacking the kernel")
    target.vmlinux.write_bytes(vmlinux(image))
    progress.update(0.85, "indexing its modules")
    modules = _place_modules(tree, scratch / "base", release)
    early = _early(modules, target.early_modules)
    progress.update(0.9, "packing its modules")
    _pack(modules.parent, target.modules)
    target.manifest.write_text(json.dumps(_manifest(kernel, release, early, target), indent=2) + "\n")


def only_kernel(tree: Path, package: str) -> tuple[Path, str]:
    """The one kernel below `tree`/boot and its release. Raises BangerError for none, or several."""
    images = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        found = f"brings {len(images)} kernels: {', '.join(i.name for i in images)}" if images else "brings no kernel"
        raise BangerError(
            f"the package {package} {found}", hint="name one kernel package, such as linux-image-cloud-amd64"
        )
    return images[0], images[0].name.removeprefix("vmlinuz-")


def _place_modules(tree: Path, base: Path, release: str) -> Path:
    """Moves the modules to `base`/lib/modules/`release`, where depmod(8) looks for them, and indexes them."""
    source = tree / "modules" / release
    if not source.is_dir():
        raise BangerError(f"the kernel {release} comes without modules", hint="choose another kernel package")
    modules = base / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    source.rename(modules)
    for link in ("build", "source"):  # to headers that no guest has
        (modules / link).unlink(missing_ok=True)
    run(["depmod", "-b", base, release])
    return modules


def _early(modules: Path, into: Path) -> list[str]:
    into.mkdir()
    order = ModuleIndex.read(modules).load_order(EARLY)
    for number, path in enumerate(order):
        (into / f"{number:02}-{module_name(path)}.ko").write_bytes(plain_module(modules / path))
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


def _manifest(kernel: Kernel, release: str, early: list[str], target: KernelPaths) -> dict[str, object]:
    def described(path: Path) -> dict[str, object]:
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}

    return {
        "apiVersion": "banger/v1",
        "kind": "kernel",
        "id": kernel.id,
        "inputs": {"recipe": KERNEL_RECIPE, "suite": kernel.source.suite, "package": kernel.source.package},
        "release": release,
        "vmlinux": described(target.vmlinux),
        "modules": described(target.modules),
        "early": early,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
