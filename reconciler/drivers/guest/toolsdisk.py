"""The disk of guest tools: an agent, an ssh server and a shell that run in any image, whatever libraries it has.

Made once for all VMs from signed Debian packages, as kernels are, and attached to each of them read-only. A guest has it
at /run/banger/tools. Every program there is started by the C library's own loader from the same disk (ld.so(8)), so
neither an image's libraries nor its lack of any make a difference:

    bin/busybox     static
    bin/NAME        starts libexec/NAME by lib/ld.so with the libraries of lib
    applets/NAME    links to busybox, for the end of a PATH: what the image lacks, it has from there
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shlex
from pathlib import Path
from urllib.parse import unquote

from reconciler.lib import builder
from reconciler.lib.bootstrap import SOURCE_DATE_EPOCH, Bootstrap, Variant, bootstrap
from reconciler.lib.errors import BangerError
from reconciler.lib.once import once
from reconciler.lib.paths import Paths, ToolsPaths
from reconciler.lib.progress import Progress
from reconciler.lib.run import require, run
from reconciler.model.artifacts import TOOLS_RECIPE, GuestTools
from reconciler.model.codec import to_json

MOUNT = "/run/banger/tools"
"""Where guests have it."""

_BUSYBOX = "bin/busybox"
_PROGRAMS = (
    "usr/sbin/qemu-ga",
    "usr/sbin/dropbear",
    "usr/bin/dropbearconvert",
    "usr/lib/openssh/sftp-server",
    "usr/bin/env",
    "usr/bin/setpriv",
    "usr/bin/unshare",
)
_LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
_LIBRARIES = "lib/x86_64-linux-gnu:usr/lib/x86_64-linux-gnu"

# Debian's links below lib64 are absolute, so they lead out of the tree: the loader is named by its own place. It lists
# what a program loads (ld.so(8)) without running the program.
_COLLECT = """\
cd "$1"
mkdir -p {into}/bin {into}/lib {into}/libexec
cp {busybox} {into}/bin/
cp -L {loader} {into}/lib/ld.so
for program in {programs}; do
    cp "$program" {into}/libexec/
    {loader} --library-path {libraries} --list "$program"
done >{into}/loaded
sed -n 's/.* => \\(.*\\) (0x[0-9a-f]*)$/\\1/p' {into}/loaded | sort -u | while read -r library; do
    case $library in /*) ;; *) cp -L "$library" {into}/lib/ ;; esac
done
rm {into}/loaded
ls var/cache/apt/archives >{into}/packages
"""
_WRAPPER = """\
#!{mount}/bin/busybox sh
exec {mount}/lib/ld.so --inhibit-cache --library-path {mount}/lib --argv0 {name} {mount}/libexec/{name} "$@"
"""


def fetch(tools: GuestTools, paths: Paths, progress: Progress) -> None:
    """Makes the disk and publishes it at `paths.tools_disk(tools.id)`, unless it is there.

    Parameters
    ----------
    progress: gets the fraction of the whole work.

    Raises BangerError: retryable if the mirror did not answer, else terminal.
    """
    target = paths.tools_disk(tools.id).root
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "tools", to_json(tools), progress)
    else:
        once(target, progress, lambda folder, scratch: _make(tools, ToolsPaths(folder), scratch, progress))


def _make(tools: GuestTools, target: ToolsPaths, scratch: Path, progress: Progress) -> None:
    require("mksquashfs", "squashfs-tools")
    tree = scratch / "tree"
    hook = "set -e\n" + _COLLECT.format(
        into=shlex.quote(str(tree)),
        busybox=_BUSYBOX,
        loader=_LOADER,
        libraries=_LIBRARIES,
        programs=" ".join(_PROGRAMS),
    )
    wanted = Bootstrap(suite=tools.suite, packages=tools.packages, variant=Variant.EXTRACT, hooks=(hook,))
    bootstrap(wanted, scratch, progress)
    packages = _versions((tree / "packages").read_text().split())
    (tree / "packages").unlink()
    progress.update(0.9, "packing the guest tools")
    _complete(tree)
    # Uncompressed, like the images. mksquashfs takes the times of files and its own from SOURCE_DATE_EPOCH.
    run(
        [
            *("mksquashfs", tree, target.squashfs, "-all-root", "-noI", "-noD", "-noF", "-noX", "-no-xattrs"),
            *("-quiet", "-no-progress", "-exit-on-error", "-mem", "128M"),
        ],
        env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    )
    target.squashfs.chmod(0o644)
    with target.squashfs.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {
        "apiVersion": "banger/v1",
        "kind": "tools",
        "id": tools.id,
        "inputs": {"recipe": TOOLS_RECIPE, **to_json(tools)},
        "sha256": digest,
        "size": target.squashfs.stat().st_size,
        "packages": packages,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    target.manifest.write_text(json.dumps(manifest, indent=2) + "\n")


def _complete(tree: Path) -> None:
    """Adds the programs' starters and busybox's names."""
    for program in _PROGRAMS:
        name = Path(program).name
        starter = tree / "bin" / name
        starter.write_text(_WRAPPER.format(mount=MOUNT, name=name))
    applets = tree / "applets"
    applets.mkdir()
    names = run([tree / _BUSYBOX, "--list"]).stdout.decode().split()
    if "sh" not in names:
        raise BangerError("busybox-static brings no shell")
    for name in names:
        (applets / name).symlink_to("../bin/busybox")
    for folder in ("bin", "lib", "libexec", "applets", "."):
        (tree / folder).chmod(0o755)
    for file in (*(tree / "bin").iterdir(), *(tree / "libexec").iterdir(), tree / "lib/ld.so"):
        file.chmod(0o755)


def _versions(archives: list[str]) -> dict[str, str]:
    """Version by name of packages that apt fetched as `name_version_architecture.deb`."""
    parts = [unquote(archive).split("_") for archive in archives if archive.endswith(".deb")]
    return {name: version for name, version, _ in sorted(parts)}
