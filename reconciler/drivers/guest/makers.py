"""The guest in which images are made: its initramfs, and the job that it is told.

Its first program is make.sh. Besides what every guest's initramfs has it brings mksquashfs(1) of the host, with the
libraries that this one is linked to.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from reconciler.drivers.guest import cpio
from reconciler.drivers.guest.initramfs import early_modules, static_busybox
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import KernelPaths
from reconciler.lib.run import require, run

_FOLDERS = (
    *("bin", "dev", "sys", "proc", "run", "scratch", "modules", "image", "overlay", "newroot"),
    *("lib", "lib/modules", "lib64", "usr", "usr/lib"),
)
# The programs of make.sh.
_APPLETS = (
    *("chroot", "cp", "env", "insmod", "ip", "mkdir", "modprobe", "mount", "reboot", "rm", "sync", "tar", "umount"),
)
_LIBRARY = re.compile(r"(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)")


def write_initramfs(kernel: KernelPaths, into: Path) -> None:
    """Writes the initramfs for a kernel. Raises BangerError if a program for it, or the kernel's modules, are missing."""
    packer = Path(require("mksquashfs", "squashfs-tools"))
    entries = [cpio.Entry.folder(name) for name in _FOLDERS]
    entries.append(cpio.Entry.character_device("dev/console", 5, 1))
    entries.append(cpio.Entry.file("bin/busybox", static_busybox(None), 0o755))
    entries += [cpio.Entry.link(f"bin/{applet}", "busybox") for applet in ("sh", *_APPLETS)]
    entries.append(cpio.Entry.file("init", resources.files(__package__).joinpath("make.sh").read_bytes(), 0o755))
    entries += [cpio.Entry.file(f"modules/{name}", data) for name, data in early_modules(kernel)]
    entries.append(cpio.Entry.file("bin/mksquashfs", packer.read_bytes(), 0o755))
    for library in _libraries(packer):
        # The loader by its own path, the others where it looks for them by itself.
        name = str(library)[1:] if library.name.startswith("ld-") else f"usr/lib/{library.name}"
        entries.append(cpio.Entry.file(name, library.read_bytes(), 0o755))
    into.write_bytes(cpio.archive(entries))


def write_job(values: Mapping[str, bytes], into: Path) -> None:
    """Writes the disk that tells the guest what to do: one file for each value, by its path."""
    with tarfile.open(into, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in values.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _libraries(program: Path) -> list[Path]:
    listing = run(["ldd", program]).stdout.decode()
    found = [Path(match[1]) for line in listing.splitlines() if (match := _LIBRARY.fullmatch(line.strip()))]
    if not found:
        raise BangerError(f"cannot see what {program} is linked to: {listing.strip()}")
    # The C library loads this one by itself, when a thread ends (pthread_exit(3)).
    return [
        *found,
        *(path for folder in {path.parent for path in found} if (path := folder / "libgcc_s.so.1").is_file()),
    ]
