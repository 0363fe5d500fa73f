"""QEMU, and what it can run guests with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import KernelPaths, Paths
from reconciler.lib.run import run, which

_PROGRAM = "qemu-system-x86_64"
_PACKAGE = "qemu-system-x86"
# The microvm machine with ACPI, and so an orderly power-off, is complete since then.
_OLDEST = (7, 2)
_VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.\d+)?")


def qemu_version() -> str | None:
    """`7.2.22`, or None where there is no QEMU that answers."""
    if which(_PROGRAM) is None:
        return None
    try:
        told = run([_PROGRAM, "--version"], timeout=10).stdout.decode("utf-8", "replace")
    except BangerError:
        return None
    match = _VERSION.search(told)
    return match[0].removeprefix("version ") if match else None


def binary() -> Iterator[Check]:
    path = which(_PROGRAM)
    if path is None:
        yield Check(
            name="qemu",
            status=Status.FAIL,
            detail=f"{_PROGRAM} is not installed",
            hint=f"apt-get install {_PACKAGE}",
            packages=(_PACKAGE,),
        )
        return
    version = qemu_version()
    if version is None:
        yield Check(
            name="qemu", status=Status.FAIL, detail=f"{path} does not tell its version", hint=f"{path} --version"
        )
        return
    major, minor = map(int, version.split(".")[:2])
    enough = (major, minor) >= _OLDEST
    yield Check(
        name="qemu",
        status=Status.OK if enough else Status.FAIL,
        detail=f"{path} {version}",
        hint=None if enough else f"QEMU {_OLDEST[0]}.{_OLDEST[1]} or newer is needed",
    )


def accelerators(paths: Paths) -> Iterator[Check]:
    """Whether guests run at full speed; emulation runs them as well, several times slower.

    With a kernel at hand KVM is tried by booting it; the verdict is remembered beside the kernels.
    """
    if which(_PROGRAM) is None:
        return
    from reconciler.drivers.vmm import accel  # noqa: PLC0415

    for check in accel.explain(_some_kernel(paths), cache=paths.cache / "accel"):
        if check.name != "qemu":
            status = Status.OK if check.ok else Status.WARN
            yield Check(name=check.name.replace(" ", "-"), status=status, detail=check.reason)


def _some_kernel(paths: Paths) -> Path | None:
    kernels = sorted(paths.kernels.glob("[0-9a-f]*"), reverse=True)
    return next((file for folder in kernels if (file := KernelPaths(folder).vmlinux).is_file()), None)
