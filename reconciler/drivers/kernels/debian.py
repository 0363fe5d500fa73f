"""Kernels from Debian packages: unpacked, never installed."""

from __future__ import annotations

import shlex
from pathlib import Path

from reconciler.drivers.kernels.extract import vmlinux
from reconciler.drivers.kernels.parts import Parts, indexed
from reconciler.lib.bootstrap import Bootstrap, Variant, bootstrap
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress, Share
from reconciler.model.artifacts import DebianKernel

# Newer releases have the modules below usr/. -L would follow a link out of the tree; these are folders.
_COPY = (
    "for part in boot lib/modules usr/lib/modules; do "
    'if [ -d "$1/$part" ] && [ ! -L "$1/$part" ]; then cp -R --no-dereference --preserve=timestamps "$1/$part" {into}; fi; '
    "done"
)


def obtain(source: DebianKernel, paths: Paths, scratch: Path, progress: Progress) -> Parts:
    """Raises BangerError: retryable if the mirror did not answer, else terminal."""
    tree = scratch / "tree"
    tree.mkdir()
    hook = _COPY.format(into=shlex.quote(str(tree)))
    wanted = Bootstrap(suite=source.suite, packages=(source.package,), variant=Variant.EXTRACT, hooks=(hook,))
    bootstrap(wanted, scratch, Share(progress, 0.9))
    image, release = only_kernel(tree, source.package)
    config = image.with_name(f"config-{release}")
    progress.update(0.9, "unpacking the kernel")
    return Parts(
        elf=vmlinux(image),
        config=config.read_text(encoding="ascii", errors="replace") if config.is_file() else None,
        modules=indexed(tree / "modules" / release, scratch / "base", release),
    )


def only_kernel(tree: Path, package: str) -> tuple[Path, str]:
    """The one kernel below `tree`/boot and its release. Raises BangerError for none, or several."""
    images = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        found = f"brings {len(images)} kernels: {', '.join(i.name for i in images)}" if images else "brings no kernel"
        raise BangerError(
            f"the package {package} {found}", hint="name one kernel package, such as linux-image-cloud-amd64"
        )
    return images[0], images[0].name.removeprefix("vmlinuz-")
