"""modules.dep gives what the initramfs loads, and in which order."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from reconciler.drivers.kernels.debian import only_kernel
from reconciler.drivers.kernels.modules import ModuleIndex, module_name, plain_module
from reconciler.lib.errors import BangerError

DEP = """\
kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko
kernel/virtio/virtio_ring.ko:
kernel/net/virtio_net.ko.xz: kernel/net/net_failover.ko kernel/net/failover.ko kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/char/virtio-rng.ko: kernel/virtio/virtio.ko
kernel/fs/ext4.ko:
kernel/crypto/crc32c_intel.ko:
kernel/crypto/crc32c_generic.ko:
"""


def names(paths: tuple[str, ...]) -> list[str]:
    return [module_name(path) for path in paths]


def test_each_module_comes_after_what_it_needs_and_once() -> None:
    order = ModuleIndex.parse(DEP).load_order(["virtio_net", "virtio-rng"])
    assert names(order) == ["failover", "net_failover", "virtio_ring", "virtio", "virtio_net", "virtio_rng"]
    assert "kernel/net/virtio_net.ko.xz" in order


def test_what_is_built_in_is_left_out() -> None:
    assert ModuleIndex.parse("", "kernel/fs/ext4/ext4.ko\n").load_order(["ext4"]) == ()


def test_a_need_that_is_built_in_is_left_out() -> None:
    index = ModuleIndex.parse("a.ko: kernel/lib/b-c.ko\n", "kernel/lib/b_c.ko\n")
    assert index.load_order(["a"]) == ("a.ko",)


def test_soft_dependencies_come_first_and_generic_ones_are_preferred() -> None:
    index = ModuleIndex.parse(
        DEP, softdep="softdep ext4 pre: crc32c nonsuch post: x\n", alias="alias crc32c crc32c_intel\nalias crc32c crc32c_generic\n"
    )  # fmt: skip
    assert names(index.load_order(["ext4"])) == ["crc32c_generic", "ext4"]


def test_soft_dependencies_may_be_circular() -> None:
    index = ModuleIndex.parse("a.ko:\nb.ko:\n", softdep="softdep a pre: b\nsoftdep b pre: a\n")
    assert names(index.load_order(["a"])) == ["b", "a"]


def test_modules_that_need_each_other_are_an_error() -> None:
    index = ModuleIndex.parse("a.ko: b.ko\nb.ko: c.ko\nc.ko: b.ko\n")
    with pytest.raises(BangerError, match=r"need each other: b -> c -> b"):
        index.load_order(["a"])


def test_a_missing_module_is_an_error_with_a_hint() -> None:
    with pytest.raises(BangerError, match="no module virtio_blk") as caught:
        ModuleIndex.parse(DEP).load_order(["virtio_blk"])
    assert caught.value.hint


def test_a_missing_need_is_an_error() -> None:
    with pytest.raises(BangerError, match="says that a needs b"):
        ModuleIndex.parse("a.ko: b.ko\n").load_order(["a"])


def test_a_damaged_line_is_an_error() -> None:
    with pytest.raises(BangerError, match="has no colon"):
        ModuleIndex.parse("kernel/a.ko\n")


def test_the_files_are_read_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(DEP)
    assert names(ModuleIndex.read(tmp_path).load_order(["virtio"])) == ["virtio_ring", "virtio"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("m.ko", bytes),
        ("m.ko.xz", lzma.compress),
        ("m.ko.gz", gzip.compress),
        ("m.ko.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_modules_are_unpacked(name: str, pack) -> None:
    elf = b"\x7fELF" + bytes(100_000)
    assert plain_module(f"kernel/fs/{name}", pack(elf)) == elf
    with pytest.raises(BangerError, match=f"{name} is not an ELF"):
        plain_module(name, pack(b"nothing"))


@pytest.mark.parametrize("name", ["m.ko.xz", "m.ko.zst", "m.ko.gz"])
def test_a_damaged_module_is_an_error(name: str) -> None:
    with pytest.raises(BangerError, match="is damaged"):
        plain_module(name, b"garbage that is long enough to be one")


@pytest.mark.parametrize(
    ("images", "message"),
    [((), "brings no kernel"), (("vmlinuz-1", "vmlinuz-2"), "brings 2 kernels: vmlinuz-1, vmlinuz-2")],
)
def test_a_package_has_to_bring_one_kernel(tmp_path: Path, images: tuple[str, ...], message: str) -> None:
    (tmp_path / "boot").mkdir()
    for image in images:
        (tmp_path / "boot" / image).touch()
    with pytest.raises(BangerError, match=message):
        only_kernel(tmp_path, "linux-image-x")


def test_the_release_is_in_the_name(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1.0-9-amd64").touch()
    assert only_kernel(tmp_path, "x")[1] == "6.1.0-9-amd64"
