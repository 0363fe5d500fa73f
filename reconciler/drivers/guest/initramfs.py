"""Builds the initramfs that starts every guest: a static busybox, `init.sh` and the kernel's early modules.

It depends on the kernel only, never on a VM: whatever is a VM's own comes on the config disk. The name is a hash of
the content, so one file serves all VMs of a kernel, and a new banger or busybox never changes the file of a running
one. It is not compressed: under emulation unpacking costs more than reading two more megabytes.
"""

from __future__ import annotations

import hashlib
import struct
from importlib import resources
from pathlib import Path

from reconciler.drivers.guest import cpio
from reconciler.lib import atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.inuse import in_use
from reconciler.lib.paths import KernelPaths
from reconciler.lib.run import which

_PACKAGE = "busybox-static"
_FOLDERS = ("bin", "dev", "sys", "run", "modules", "image", "overlay", "newroot")
# The programs of init.sh. Links, because busybox looks for its own applets through /proc, which is not mounted.
_APPLETS = (
    *("chroot", "cp", "hostname", "insmod", "ip", "ln", "mkdir"),
    *("mount", "reboot", "rm", "sleep", "switch_root", "sync", "tar"),
)
_PT_INTERP = 3


def ensure(kernel: KernelPaths, folder: Path, *, busybox: Path | None = None) -> Path:
    """The initramfs for a kernel, built if it is not there yet.

    Parameters
    ----------
    kernel: a published kernel; its `early_modules` are loaded in the order of their names.
    folder: where initramfs files are kept.
    busybox: a statically linked busybox; by default the host's own.

    Raises BangerError if the kernel's modules or a static busybox are missing, or the folder cannot be written.
    Calling it at the same time from several processes is safe: all of them write the same bytes.
    """
    program = static_busybox(busybox)
    data = _build(program, _script("init.sh"), early_modules(kernel), modules_disk=kernel.modules.exists())
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.cpio"
    try:
        with in_use(path):
            return path
    except OSError:
        pass  # it is made, or the error is told where that fails
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.staging(folder) as stage:
            staged = stage / path.name
            staged.write_bytes(data)
            atomic.publish(staged, path)
    except OSError as problem:
        raise BangerError(
            f"cannot write the initramfs {path}: {problem.strerror}",
            hint=f"df -h {folder}",
            error_class=ErrorClass.RETRYABLE,
        ) from problem
    return path


def _build(busybox: bytes, init: bytes, modules: list[tuple[str, bytes]], *, modules_disk: bool) -> bytes:
    entries = [cpio.Entry.folder(name) for name in _FOLDERS]
    # The kernel opens it for the init before anything is mounted (console(4)).
    entries.append(cpio.Entry.character_device("dev/console", 5, 1))
    # The shell opens it for what it starts in the background (image.sh), when /dev has left for the new root.
    entries.append(cpio.Entry.character_device("dev/null", 1, 3, 0o666))
    entries.append(cpio.Entry.file("bin/busybox", busybox, 0o755))
    entries += [cpio.Entry.link(f"bin/{applet}", "busybox") for applet in _APPLETS]
    entries.append(cpio.Entry.file("init", init, 0o755))
    entries.append(cpio.Entry.file("image.sh", _script("image.sh")))
    entries += [cpio.Entry.file(f"modules/{name}", data) for name, data in modules]
    if modules_disk:
        entries.append(cpio.Entry.file("modules.disk", b""))  # init.sh mounts one
    return cpio.archive(entries)


def _script(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def early_modules(kernel: KernelPaths) -> list[tuple[str, bytes]]:
    """Name and content of each module that the kernel needs to find its disks, in the order in which they load."""
    try:
        return [(path.name, path.read_bytes()) for path in sorted(kernel.early_modules.iterdir())]
    except OSError as problem:
        raise BangerError(
            f"cannot read the kernel's modules in {kernel.early_modules}: {problem.strerror}"
        ) from problem


def static_busybox(path: Path | None) -> bytes:
    """The content of a statically linked busybox, by default the host's. Raises BangerError if there is none."""
    found = path or (Path(name) if (name := which("busybox")) else None)
    if found is None:
        raise BangerError("busybox is not installed", hint=f"apt-get install {_PACKAGE}")
    try:
        data = found.read_bytes()
    except OSError as problem:
        raise BangerError(f"cannot read {found}: {problem.strerror}", hint=f"apt-get install {_PACKAGE}") from problem
    if not _is_static(data):
        raise BangerError(f"{found} is not a statically linked program", hint=f"apt-get install {_PACKAGE}")
    return data


def _is_static(data: bytes) -> bool:
    """Whether an ELF-64 program asks for no dynamic loader: it has no PT_INTERP (elf(5))."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or data[4] != 2:
        return False
    (offset,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    if offset + size * count > len(data):
        return False
    return all(struct.unpack_from("<I", data, offset + size * index)[0] != _PT_INTERP for index in range(count))
