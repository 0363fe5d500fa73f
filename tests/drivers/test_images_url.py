"""Images from files: what each is taken for, what is refused, and what a guest gets to read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from reconciler.drivers.images import superblock
from reconciler.drivers.images.build import build
from reconciler.drivers.images.packing import Job, JobKind
from reconciler.drivers.images.url import recognised
from reconciler.lib.atomic import STAGING
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress, Silent
from reconciler.model.artifacts import Image, ImageFormat, UrlImage

needs_tools = pytest.mark.skipif(not shutil.which("sqfstar"), reason="needs squashfs-tools")
COMPRESSIONS = [gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress]


class Guest:
    """Instead of a guest: notes what it was asked for, and makes something."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.read: list[bytes] = []

    def __call__(self, job: Job, squashfs: Path, scratch: Path, progress: Progress) -> None:
        self.jobs.append(job)
        self.read.append(job.root.read_bytes())
        squashfs.write_bytes(b"packed")


def qcow2(*, version: int = 3, backing: int = 0, size: int = 1 << 30, crypt: int = 0, incompatible: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, size, crypt)
    return head.ljust(72, b"\0") + struct.pack(">Q", incompatible) + bytes(512)


def raw(at: int, magic: bytes) -> bytes:
    return (bytes(at) + magic).ljust(1 << 17, b"\0")


def image(folder: Path, data: bytes, kind: ImageFormat = ImageFormat.AUTO) -> Image:
    (folder / "file").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Image(name="i", source=UrlImage(url=(folder / "file").as_uri(), sha256=digest, format=kind), kernel="k")


def built(wanted: Image, folder: Path, guest: Guest | None = None) -> ImagePaths:
    paths = Paths.discover({"BANGER_HOME": str(folder / "home")})
    build(wanted, paths, Silent(), guest or Guest())
    return paths.image(wanted.id)


def refused(wanted: Image, folder: Path) -> str:
    guest = Guest()
    with pytest.raises(BangerError) as caught:
        built(wanted, folder, guest)
    images = folder / "home/cache/images"
    assert guest.jobs == []
    assert [path.name for path in images.iterdir() if path.name not in (".locks", STAGING)] == []
    assert list((images / STAGING).glob("*")) == []
    return caught.value.cause


def squashfs(folder: Path) -> bytes:
    (folder / "tree/etc").mkdir(parents=True)
    (folder / "tree/etc/os-release").write_text("ID=tiny\n")
    subprocess.run(
        ["mksquashfs", folder / "tree", folder / "s", "-nopad", "-quiet", "-no-progress", "-comp", "xz"], check=True
    )
    return (folder / "s").read_bytes()


@needs_tools
def test_a_squashfs_is_taken_as_it_is_and_filled_up_to_a_page(tmp_path: Path) -> None:
    data = squashfs(tmp_path)
    place = built(image(tmp_path, data + b"junk" * 3000), tmp_path)
    assert place.squashfs.read_bytes()[: len(data)] == data
    assert place.squashfs.stat().st_size == -(-len(data) // 4096) * 4096
    manifest = json.loads(place.manifest.read_text())
    assert manifest["format"] == "squashfs" and manifest["size"] == place.squashfs.stat().st_size


@needs_tools
@pytest.mark.parametrize("pack", COMPRESSIONS, ids=["gz", "xz", "bz2", "zst"])
def test_a_compressed_one_is_unpacked_first(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = squashfs(tmp_path)
    assert built(image(tmp_path, pack(data)), tmp_path).squashfs.read_bytes()[: len(data)] == data


@needs_tools
@pytest.mark.parametrize("pack", COMPRESSIONS, ids=["gz", "xz", "bz2", "zst"])
def test_a_damaged_compression_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = pack(squashfs(tmp_path))
    assert "damaged" in refused(image(tmp_path, data[: len(data) // 2]), tmp_path)


@needs_tools
@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap")
@pytest.mark.parametrize("pack", [bytes, *COMPRESSIONS], ids=["plain", "gz", "xz", "bz2", "zst"])
def test_a_tar_is_flattened(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("etc/hello")
        entry.size, entry.uid, entry.mode = 5, 1234, 0o4755
        archive.addfile(entry, io.BytesIO(b"hello"))
    place = built(image(tmp_path, pack(out.getvalue())), tmp_path)
    listing = subprocess.run(["unsquashfs", "-lln", place.squashfs], check=True, capture_output=True, text=True).stdout
    assert "-rwsr-xr-x 1234/0" in listing


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"hsqs", ImageFormat.SQUASHFS),
        (qcow2(), ImageFormat.QCOW2),
        (raw(257, b"ustar"), ImageFormat.TAR),
        (raw(1080, b"\x53\xef"), ImageFormat.RAW),
        (raw(0, b"XFSB"), ImageFormat.RAW),
        (raw(0x10040, b"_BHRfS_M"), ImageFormat.RAW),
        (raw(510, b"\x55\xaa"), ImageFormat.RAW),
    ],
    ids=["squashfs", "qcow2", "tar", "ext4", "xfs", "btrfs", "partitions"],
)
def test_the_first_bytes_tell_what_it_is(tmp_path: Path, data: bytes, kind: ImageFormat) -> None:
    (tmp_path / "file").write_bytes(data)
    assert recognised(tmp_path / "file") is kind


@needs_tools
@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", bytes(1 << 17)], ids=["empty", "html", "zeros"])
def test_anything_else_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "neither squashfs, tar, qcow2 nor a disk" in refused(image(tmp_path, data), tmp_path)


@needs_tools
@pytest.mark.parametrize(
    ("data", "kind", "format"),
    [
        (qcow2(), ImageFormat.AUTO, "qcow2"),
        (raw(1080, b"\x53\xef"), ImageFormat.AUTO, "raw"),
        (bytes(9000), ImageFormat.RAW, "raw"),
    ],
    ids=["qcow2", "ext4", "said"],
)
def test_a_disk_is_for_a_guest_to_read(tmp_path: Path, data: bytes, kind: ImageFormat, format: str) -> None:
    guest = Guest()
    place = built(image(tmp_path, data, kind), tmp_path, guest)
    (job,) = guest.jobs
    assert (job.kind, job.format, guest.read) == (JobKind.DISK, format, [data])
    assert place.squashfs.read_bytes() == b"packed"


@needs_tools
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (qcow2(backing=512), "a layer over another file"),
        (qcow2(incompatible=1 << 2), "its data is in another file"),
        (qcow2(incompatible=1 << 40), "features that are not known"),
        (qcow2(crypt=1), "is encrypted"),
        (qcow2(version=4), "qcow2 of version 4"),
        (qcow2(size=1 << 60), "is a disk of"),
        (qcow2()[:40], "is no qcow2"),
    ],
    ids=["backing", "data", "unknown", "encrypted", "version", "size", "short"],
)
def test_a_qcow2_that_reaches_for_other_files_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refused(image(tmp_path, data), tmp_path)


@needs_tools
def test_what_is_said_has_to_be_true(tmp_path: Path) -> None:
    assert "is no qcow2" in refused(image(tmp_path, bytes(9000), ImageFormat.QCOW2), tmp_path)
    assert "is no squashfs" in refused(image(tmp_path, bytes(9000), ImageFormat.SQUASHFS), tmp_path)


@needs_tools
@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (28, b"\x03\0", "squashfs 3.0; Linux mounts 4.0"),
        (20, b"\x09\0", "the compression 9"),
        (12, b"\1\0\0\0", "block size is impossible"),
        (40, b"\xff\xff\xff\xff\xff\xff\xff\x7f", "cut off"),
        (40, b"\0\0\0\0\0\0\0\0", "cut off"),
    ],
)
def test_a_damaged_superblock_is_refused(tmp_path: Path, at: int, value: bytes, message: str) -> None:
    data = bytearray(squashfs(tmp_path))
    data[at : at + len(value)] = value
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(BangerError, match=message):
        superblock.check_squashfs(tmp_path / "bad")


def test_where_it_lies_is_no_part_of_its_identity() -> None:
    one, other = (UrlImage(url=place, sha256="0" * 64) for place in ("https://a/x", "file:///b"))
    assert one.id == other.id != UrlImage(url="https://a/x", sha256="0" * 64, format=ImageFormat.RAW).id
