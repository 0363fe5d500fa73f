"""What a kernel consists of, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.drivers.kernels.modules import ModuleIndex
from reconciler.lib.errors import BangerError
from reconciler.lib.run import run


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of one kernel.

    Parameters
    ----------
    read: the content of the file at a path relative to `lib/modules/<release>`.
    folder: `lib/modules`, to be packed; None if guests have it in their image.
    """

    release: str
    index: ModuleIndex
    read: Callable[[str], bytes]
    folder: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A kernel, unpacked: its ELF, its configuration if that lies beside it, and its modules if it has any."""

    elf: bytes
    config: str | None = None
    modules: Modules | None = None


def indexed(source: Path, base: Path, release: str) -> Modules:
    """Moves a folder of modules to `base`/lib/modules/`release`, where depmod(8) looks for it, and indexes it.

    Raises BangerError if there is no such folder.
    """
    if source.is_symlink() or not source.is_dir():
        raise BangerError(f"the kernel {release} comes without modules", hint="choose another kernel package")
    modules = base / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    source.rename(modules)
    for link in ("build", "source"):  # to headers that no guest has
        (modules / link).unlink(missing_ok=True)
    run(["depmod", "-b", base, release])
    return Modules(
        release=release,
        index=ModuleIndex.read(modules),
        read=lambda path: (modules / path).read_bytes(),
        folder=modules.parent,
    )
