"""Images that are made in a guest: from a disk with partitions, and by steps over another image."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reconciler.daemon.drivers import real_packer
from reconciler.drivers.images.build import build
from reconciler.drivers.images.packing import Job, JobKind
from reconciler.drivers.vmm import disks
from reconciler.lib.atomic import STAGING
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import BuiltImage, CopyStep, Image, RunStep, UrlImage

if TYPE_CHECKING:
    from tests.host.conftest import Artifacts

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes"),
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils"),
]
START = 8192


def listing(squashfs: Path) -> dict[str, list[str]]:
    out = subprocess.run(["unsquashfs", "-lln", squashfs], check=True, capture_output=True, text=True).stdout
    rows = {}
    for line in out.splitlines():
        words = line.split(maxsplit=5)
        if words[1:2] and "/" in words[1]:
            name = line.partition("squashfs-root")[2]
            rows[name] = words
    return rows


def content(squashfs: Path, path: str) -> bytes:
    return subprocess.run(["unsquashfs", "-cat", squashfs, path], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def paths(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return artifact_cache.paths(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tiny(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image of a busybox and little else, from the second partition of a qcow2."""
    folder = tmp_path_factory.mktemp("tiny")
    tree = folder / "tree"
    for name in ("bin", "etc/ssh", "dev", "var/log/journal", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    (tree / "bin/setuid").write_text("not a shell, which would become its owner\n")
    os.chown(tree / "bin/setuid", 12, 34)
    (tree / "bin/setuid").chmod(0o4755)  # last: a change of owner takes the bit away
    os.link(tree / "bin/setuid", tree / "bin/hard")
    for applet in ("sh", "cat", "id", "ls", "mkdir"):
        (tree / "bin" / applet).symlink_to("busybox")
    os.mknod(tree / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    (tree / "etc/os-release").write_text("ID=tiny\n")
    os.setxattr(tree / "etc/os-release", "user.hello", b"there")
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tree / "etc/ssh/ssh_host_ed25519_key").write_text("secret\n")
    (tree / "var/log/journal/x").touch()
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, folder / "root.ext4", "64M"], check=True)
    with (folder / "disk").open("wb") as disk:
        disk.truncate((START + 64 * 2048 + 2048) * 512)
        # The partition table of an MBR: one that is not formatted, and the one with the root.
        for number, (start, length) in enumerate([(2048, 4096), (START, 64 * 2048)]):
            disk.seek(446 + 16 * number)
            disk.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + start.to_bytes(4, "little") + length.to_bytes(4, "little"))
        disk.seek(510)
        disk.write(b"\x55\xaa")
        disk.seek(START * 512)
        disk.write((folder / "root.ext4").read_bytes())
    file = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", folder / "disk", file], check=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    image = Image(name="tiny", source=UrlImage(url=file.as_uri(), sha256=digest), kernel="k")
    build(image, paths, Silent(), real_packer(paths))
    return image


def test_the_root_of_a_disk_is_found_and_packed(tiny: Image, paths: Paths) -> None:
    squashfs = paths.image(tiny.id).squashfs
    files = listing(squashfs)
    assert files["/bin/setuid"][:2] == ["-rwsr-xr-x", "12/34"] == files["/bin/hard"][:2]
    assert files["/dev/null"][0].startswith("c")
    assert content(squashfs, "etc/machine-id") == b""
    assert not {"/etc/ssh/ssh_host_ed25519_key", "/var/log/journal/x"} & files.keys()
    assert squashfs.stat().st_size % 4096 == 0


def test_attributes_and_hard_links_stay(tiny: Image, paths: Paths, tmp_path: Path) -> None:
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tmp_path / "out", paths.image(tiny.id).squashfs], check=True)
    assert os.getxattr(tmp_path / "out/etc/os-release", "user.hello") == b"there"
    assert (tmp_path / "out/bin/hard").samefile(tmp_path / "out/bin/setuid")


def test_steps_change_another_image(tiny: Image, paths: Paths) -> None:
    steps = (
        RunStep(script="id -u >/etc/who\nmkdir -p /srv/x\necho gone >/tmp/gone\n"),
        CopyStep(to="/srv/x/tool", mode="0755", content="#!/bin/sh\necho tool\n"),
        RunStep(script="/srv/x/tool >/etc/tool\ncat /proc/cmdline >/dev/null\nls /sys/class/net >/etc/nets"),
    )
    image = Image(name="two", source=BuiltImage(base=tiny.id, steps=steps), kernel="k")
    build(image, paths, Silent(), real_packer(paths))
    squashfs = paths.image(image.id).squashfs
    assert content(squashfs, "etc/who") == b"0\n" and content(squashfs, "etc/tool") == b"tool\n"
    assert b"eth0" in content(squashfs, "etc/nets")
    files = listing(squashfs)
    assert files["/srv/x/tool"][0] == "-rwxr-xr-x"
    assert files["/bin/setuid"][:2] == ["-rwsr-xr-x", "12/34"]
    assert not {"/tmp/gone", "/etc/resolv.conf", "/run/banger"} & files.keys()


def test_a_step_that_fails_ends_it_and_leaves_nothing(tiny: Image, paths: Paths) -> None:
    steps = (RunStep(script="echo going well\necho but not here >&2\nno-such-program\necho never"),)
    image = Image(name="bad", source=BuiltImage(base=tiny.id, steps=steps), kernel="k")
    with pytest.raises(BangerError, match="step run echo going well: it ended with exit code 127") as caught:
        build(image, paths, Silent(), real_packer(paths))
    assert "but not here" in caught.value.cause and "never" not in caught.value.cause
    assert not paths.image(image.id).root.exists()
    assert list((paths.images / STAGING).glob("*")) == []


def test_the_disk_of_a_vm_over_its_image(tiny: Image, paths: Paths, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    upper = tmp_path / "tree/upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/mine").write_text("mine\n")
    os.mknod(upper / "etc/os-release", 0o020000, os.makedev(0, 0))  # overlayfs: it was removed
    disks.create_ext4(overlay, 64 << 20, "overlay")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tmp_path / "tree", overlay], check=True)
    before = hashlib.sha256(overlay.read_bytes()).digest()
    job = Job(kind=JobKind.VM, root=paths.image(tiny.id).squashfs, overlay=overlay)
    real_packer(paths)(job, tmp_path / "out", tmp_path, Silent())
    files = listing(tmp_path / "out")
    assert content(tmp_path / "out", "etc/mine") == b"mine\n" and "/bin/busybox" in files
    assert "/etc/os-release" not in files
    assert hashlib.sha256(overlay.read_bytes()).digest() == before
