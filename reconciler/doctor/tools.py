"""The programs that are called, and where Debian packages come from."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.drivers.guest.initramfs import static_busybox
from reconciler.lib import debian
from reconciler.lib.errors import BangerError
from reconciler.lib.run import which

_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the Debian package that has it, and what it is called for."""

    program: str
    package: str
    purpose: str


TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", "builds images and fetches kernels"),
    Tool("sqfstar", "squashfs-tools", "packs images"),
    Tool("mksquashfs", "squashfs-tools", "packs kernel modules"),
    Tool("depmod", "kmod", "indexes kernel modules"),
    Tool("mkfs.ext4", "e2fsprogs", "makes disks"),
    Tool("e2fsck", "e2fsprogs", "checks disks before they grow"),
    Tool("resize2fs", "e2fsprogs", "grows disks"),
    Tool("ssh", "openssh-client", "enters VMs"),
    Tool("ssh-keygen", "openssh-client", "makes the keys of host and guests"),
    Tool("bwrap", "bubblewrap", "reads the layers of images in a sandbox"),
    Tool("prlimit", "util-linux", "bounds what reading an image may take"),
    Tool("unshare", "util-linux", "fences image builds in"),
    Tool("setpriv", "util-linux", "ends children together with banger"),
    Tool("git", "git", "ships workspaces, and brings back what was done in them"),
    Tool("nft", "nftables", "loads the rules of networks"),
)

FOR_SOME = (
    Tool("rsync", "rsync", "copies files: what `banger cp` needs"),
    Tool("skopeo", "skopeo", "pulls images of registries: what a file with `oci` needs"),
)
"""Programs that not everybody needs."""


def python() -> Iterator[Check]:
    found = platform.python_version()
    enough = sys.version_info >= _PYTHON
    yield Check(
        name="python",
        status=Status.OK if enough else Status.FAIL,
        detail=found,
        hint=None if enough else "Python 3.11 or newer is needed",
    )


def programs() -> Iterator[Check]:
    for tool in (*TOOLS, *FOR_SOME):
        path = which(tool.program)
        if path:
            yield Check(name=tool.program, status=Status.OK, detail=path)
        else:
            yield Check(
                name=tool.program,
                status=Status.FAIL if tool in TOOLS else Status.WARN,
                detail=f"not installed; it {tool.purpose}",
                hint=f"apt-get install {tool.package}",
                packages=(tool.package,),
            )


def busybox() -> Iterator[Check]:
    """Static, because it runs in an initramfs without libraries."""
    try:
        static_busybox(None)
    except BangerError as problem:
        yield Check(
            name="busybox", status=Status.FAIL, detail=problem.cause, hint=problem.hint, packages=("busybox-static",)
        )
    else:
        yield Check(name="busybox", status=Status.OK, detail=f"{which('busybox')}, static")


def debian_archive() -> Iterator[Check]:
    """The archive that images and kernels are made from, and the keys that sign it."""
    if not debian.KEYRING.is_file():
        package = "debian-archive-keyring"
        yield Check(
            name="debian-archive",
            status=Status.FAIL,
            detail=f"{debian.KEYRING} is missing",
            hint=f"apt-get install {package}",
            packages=(package,),
        )
        return
    try:
        sources = debian.sources(_suite())
    except BangerError as problem:
        yield Check(name="debian-archive", status=Status.FAIL, detail=problem.cause, hint=problem.hint)
    else:
        yield Check(name="debian-archive", status=Status.OK, detail=f"{sources[0].uri} {sources[0].suite}, signed")


def _suite() -> str:
    """The host's own suite (os-release(5)); of a host that is not Debian, the present stable one's predecessor will do."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    return "bookworm"
