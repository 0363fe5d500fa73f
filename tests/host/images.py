"""Images that no source of banger makes: a tree of files becomes one in the cache, under the identity of a Debian image.

So a file can name it, and nothing is fetched for it: `packages` has a name that no package has.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.drivers.images.squashfs import packing
from reconciler.lib.atomic import publish, staging
from reconciler.lib.bootstrap import Bootstrap, Variant, bootstrap
from reconciler.lib.once import once
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import DebianImage

INITTAB = """\
::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
::shutdown:/sbin/openrc shutdown
"""
INIT = """\
#!/bin/sh
echo "init is process $$"
trap 'echo init was asked to end; exit 0' TERM
while :; do sleep 1; done
"""
HELLO = """\
#!/sbin/openrc-run
start() {
    echo "$RC_RUNLEVEL" >/run/hello
}
"""


def put(cache: Path, name: str, tree: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Publishes the tree, all of it root's, and returns the image as a file declares it."""
    place = _place(cache, name)
    with staging(place.root.parent) as folder:
        made = folder / "image"
        made.mkdir()
        _pack(tree, made, config)
        shutil.rmtree(place.root, ignore_errors=True)
        publish(made, place.root)
    return _declared(name)


def small(cache: Path) -> None:
    """Publishes `SMALL`; of several workers one does."""
    once(_place(cache, "small").root, Silent(), lambda made, scratch: _pack(shell_only(scratch / "tree"), made, None))


def _declared(name: str) -> dict[str, Any]:
    return {"debian": {"suite": "bookworm", "packages": [f"test-image-{name}"]}, "kernel": "debian"}


SMALL = _declared("small")
"""The image of VMs whose guest is of no interest: busybox below banger's own init, ready long before a Debian."""


def _place(cache: Path, name: str) -> ImagePaths:
    return Paths(cache, cache, cache, cache).image(DebianImage(suite="bookworm", packages=(f"test-image-{name}",)).id)


def _pack(tree: Path, made: Path, config: Mapping[str, Any] | None) -> None:
    names = sorted(path.name for path in tree.iterdir())
    words = ["tar", "-C", tree, "--owner=0", "--group=0", "--format=posix", "-c", *names]
    archive = subprocess.Popen(words, stdout=subprocess.PIPE)
    image = ImagePaths(made)
    subprocess.run(packing(image.squashfs), stdin=archive.stdout, check=True)
    assert archive.wait() == 0
    image.manifest.write_text(json.dumps({"config": config} if config is not None else {}))


def busybox() -> Path:
    found = shutil.which("busybox")
    assert found
    return Path(found)


def static(tree: Path) -> Path:
    """Nothing but one static program, which is busybox."""
    tree.mkdir()
    shutil.copy(busybox(), tree / "busybox")
    return tree


def shell_only(tree: Path) -> Path:
    """As small container images have it: busybox with all its names, also that of an init that has nothing to do."""
    (tree / "bin").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh")
    (tree / "home" / "alice").mkdir(parents=True)
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    _applets(tree)
    return tree


def openrc(tree: Path, scratch: Path) -> Path:
    """As Alpine has it: busybox is the init, and runs openrc."""
    scratch.mkdir()
    tree.mkdir()
    wanted = Bootstrap(suite="bookworm", packages=("base-files", "openrc", "usr-is-merged"), variant=Variant.EXTRACT)
    bootstrap(wanted, scratch, Silent(), into=[["tar", "-C", tree, "-x"]])
    for name in ("dev", "proc", "sys", "run", "var/cache/apt", "usr/share/doc"):
        shutil.rmtree(tree / name, ignore_errors=True)
    _applets(tree)
    (tree / "sbin" / "init").symlink_to("/bin/busybox")
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc" / "group").write_text("root:x:0:\ntty:x:5:\n")
    (tree / "etc" / "inittab").write_text(INITTAB)
    hello = tree / "etc" / "init.d" / "hello"
    hello.parent.mkdir(exist_ok=True)
    hello.write_text(HELLO)
    hello.chmod(0o755)
    for level in ("sysinit", "boot", "default", "shutdown"):
        (tree / "etc" / "runlevels" / level).mkdir(parents=True, exist_ok=True)
    (tree / "etc" / "runlevels" / "default" / "hello").symlink_to("/etc/init.d/hello")
    return tree


def _applets(tree: Path) -> None:
    shutil.copy(busybox(), tree / "bin" / "busybox")
    names = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if not (tree / "bin" / name).exists():
            (tree / "bin" / name).symlink_to("busybox")
