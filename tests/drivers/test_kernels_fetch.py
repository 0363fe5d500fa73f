"""Kernels by address, from files and out of images, published whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from reconciler.drivers.kernels import url
from reconciler.drivers.kernels.fetch import fetch
from reconciler.drivers.kernels.requirements import NEEDS
from reconciler.lib.atomic import STAGING
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import KernelPaths, Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import Blob, ImageKernel, Kernel, UrlKernel
from tests.drivers.kernel_builder import CONFIG, RELEASE, bzimage, config_text, elf

needs_tools = pytest.mark.skipif(
    not (shutil.which("depmod", path="/usr/sbin:/sbin") and shutil.which("mksquashfs")),
    reason="needs kmod and squashfs-tools",
)
MODULE = b"\x7fELF\x02\x01\x01" + bytes(57)


def modules_tar(
    *, release: str = RELEASE, prefix: str = "", more: Callable[[tarfile.TarFile], None] | None = None
) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for need in NEEDS:
            add(archive, f"{prefix}lib/modules/{release}/kernel/fs/{need.module}.ko", MODULE)
        add(archive, f"{prefix}lib/modules/{release}/modules.builtin", b"")
        add(archive, f"{prefix}lib/modules/{release}/modules.order", b"")
        if more:
            more(archive)
    return raw.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    archive.addfile(info, io.BytesIO(data))


def blob(path: Path, data: bytes) -> Blob:
    path.write_bytes(data)
    return Blob(url=path.as_uri(), sha256=hashlib.sha256(data).hexdigest())


def kernel(folder: Path, data: bytes, modules: bytes | None = None) -> Kernel:
    image = blob(folder / "kernel", data)
    archive = blob(folder / "modules", modules) if modules is not None else None
    return Kernel(name="k", source=UrlKernel(url=image.url, sha256=image.sha256, modules=archive))


def fetched(wanted: Kernel, folder: Path) -> KernelPaths:
    paths = Paths.discover({"BANGER_HOME": str(folder / "home")})
    fetch(wanted, paths, Silent())
    return paths.kernel(wanted.id)


def refused(wanted: Kernel, folder: Path) -> str:
    with pytest.raises(BangerError) as caught:
        fetched(wanted, folder)
    kernels = folder / "home/cache/kernels"
    assert [path.name for path in kernels.iterdir() if path.name not in (".locks", STAGING)] == []
    assert list((kernels / STAGING).glob("*")) == []
    return caught.value.cause


@needs_tools
@pytest.mark.parametrize("packed", [bytes, bzimage], ids=["vmlinux", "bzImage"])
def test_a_kernel_with_all_built_in_is_taken_without_modules(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    plain = elf(config=CONFIG)
    place = fetched(kernel(tmp_path, packed(plain)), tmp_path)
    assert place.vmlinux.read_bytes() == plain
    assert list(place.early_modules.iterdir()) == [] and not place.modules.exists()
    manifest = json.loads(place.manifest.read_text())
    assert (manifest["release"], manifest["modules"], manifest["configurationChecked"]) == (RELEASE, None, True)


@needs_tools
@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress],
    ids=["tar", "gz", "xz", "bz2", "zst"],
)
def test_modules_come_from_an_archive(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    place = fetched(kernel(tmp_path, elf(), pack(modules_tar(prefix="./usr/"))), tmp_path)
    assert sorted(path.name.partition("-")[2] for path in place.early_modules.iterdir()) == sorted(
        f"{need.module}.ko" for need in NEEDS
    )
    listing = subprocess.run(["unsquashfs", "-l", place.modules], check=True, capture_output=True, text=True).stdout
    assert f"{RELEASE}/modules.dep" in listing


def test_where_the_bytes_lie_is_no_part_of_the_identity() -> None:
    one, other = (UrlKernel(url=place, sha256="0" * 64) for place in ("https://a/x", "file:///b"))
    assert one.id == other.id != UrlKernel(url="https://a/x", sha256="1" * 64).id


@needs_tools
def test_what_a_kernel_lacks_is_said_before_it_is_published(tmp_path: Path) -> None:
    told = refused(kernel(tmp_path, elf(config={**CONFIG, "SQUASHFS": "n"})), tmp_path)
    assert "lacks what microVMs need: CONFIG_SQUASHFS (the image)" in told


@needs_tools
@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (modules_tar(release="6.9.2-other"), f"the modules are those of 6.9.2-other, and the kernel is {RELEASE}"),
        (modules_tar()[:3000], "is damaged"),
        (gzip.compress(modules_tar())[:-50], "is damaged"),
        (b"no archive at all", "is damaged"),
        (modules_tar(more=lambda archive: add(archive, "lib/modules/6.1/a.ko", MODULE)), "modules of several kernels"),
        (b"\0" * 10240, "no file below lib/modules/RELEASE"),
    ],
    ids=["release", "cut", "cut-gz", "none", "two", "empty"],
)
def test_a_wrong_archive_of_modules_is_refused(tmp_path: Path, modules: bytes, message: str) -> None:
    assert message in refused(kernel(tmp_path, elf(), modules), tmp_path)


def test_an_archive_cannot_reach_beyond_its_folder(tmp_path: Path) -> None:
    def hostile(archive: tarfile.TarFile) -> None:
        base = f"lib/modules/{RELEASE}"
        add(archive, f"{base}/../../../../escaped.ko", MODULE)
        add(archive, f"{base}/kernel/link", kind=tarfile.SYMTYPE, link=str(tmp_path))
        add(archive, f"{base}/kernel/link/through.ko", MODULE)
        add(archive, f"{base}/kernel/hard.ko", kind=tarfile.LNKTYPE, link="/etc/passwd")
        add(archive, f"{base}/kernel/device.ko", kind=tarfile.CHRTYPE)
        add(archive, f"{base}/kernel/soft.ko", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(archive, "/etc/evil.ko", MODULE)

    (tmp_path / "archive").write_bytes(modules_tar(more=hostile))
    assert url.unpack(tmp_path / "archive", tmp_path / "into") == RELEASE
    found = [path for path in (tmp_path / "into").rglob("*") if not path.is_dir()]
    assert not [path for path in found if path.is_symlink() or not path.is_file()]
    assert {path.name for path in found} >= {"through.ko"} and not {"hard.ko", "device.ko", "soft.ko"} & {
        path.name for path in found
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "into"]


@pytest.mark.parametrize("bound", ["MAX_FILES", "MAX_UNPACKED"])
def test_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(url, bound, 3)
    (tmp_path / "archive").write_bytes(modules_tar())
    with pytest.raises(BangerError, match="has more than"):
        url.unpack(tmp_path / "archive", tmp_path / "into")


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "archive").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(10240))
    with pytest.raises(BangerError, match=r"has a header of 1\.0 GiB"):
        url.unpack(tmp_path / "archive", tmp_path / "into")


def image_with(folder: Path, files: dict[str, bytes]) -> Kernel:
    """The kernel of an image that has these files and no other."""
    tree = folder / "tree"
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    place = Paths.discover({"BANGER_HOME": str(folder / "home")}).image("0123456789abcdef")
    place.root.mkdir(parents=True)
    subprocess.run(["mksquashfs", tree, place.squashfs, "-quiet", "-no-progress"], check=True)
    return Kernel(name="k", source=ImageKernel(image="0123456789abcdef"))


@needs_tools
@pytest.mark.parametrize("prefix", ["usr/lib", "lib"])
def test_an_image_s_own_kernel_is_found_with_its_modules(tmp_path: Path, prefix: str) -> None:
    modules = f"{prefix}/modules/{RELEASE}"
    files = {
        f"boot/vmlinuz-{RELEASE}": bzimage(elf()),
        f"boot/config-{RELEASE}": config_text({**CONFIG, "SQUASHFS": "m"}).encode(),
        f"{modules}/modules.dep": b"kernel/fs/squashfs.ko:\n",
        f"{modules}/modules.builtin": b"".join(b"kernel/%s.ko\n" % need.module.encode() for need in NEEDS[:3])
        + b"kernel/overlay.ko\nkernel/ext4.ko\n",
        f"{modules}/kernel/fs/squashfs.ko": MODULE,
    }
    place = fetched(image_with(tmp_path, files), tmp_path)
    assert place.vmlinux.read_bytes() == elf()
    assert [path.name for path in place.early_modules.iterdir()] == ["00-squashfs.ko"]
    assert not place.modules.exists()


@needs_tools
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"etc/hostname": b"x"}, "has no /boot/vmlinuz-RELEASE"),
        ({"boot/vmlinuz-1": b"", "boot/vmlinuz-2": b""}, "has 2 kernels: 1, 2"),
        ({f"boot/vmlinuz-{RELEASE}": b"MZ nothing"}, "neither an ELF nor"),
    ],
)
def test_an_image_without_one_kernel_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    assert message in refused(image_with(tmp_path, files), tmp_path)


@needs_tools
def test_a_kernel_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree/boot").mkdir(parents=True)
    (tmp_path / f"tree/boot/vmlinuz-{RELEASE}").symlink_to("/etc/passwd")
    assert "has no /boot/vmlinuz-RELEASE" in refused(image_with(tmp_path, {"etc/hostname": b"x"}), tmp_path)


@needs_tools
def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    wanted = Kernel(name="k", source=ImageKernel(image="f" * 16))
    assert f"the image {'f' * 16}, whose kernel this is, is not in the cache" in refused(wanted, tmp_path)
