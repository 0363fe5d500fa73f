"""A kernel that could not boot a VM is refused with the names of the options that it lacks."""

from __future__ import annotations

import random
import struct

import pytest

from reconciler.drivers.kernels import requirements
from reconciler.drivers.kernels.modules import ModuleIndex
from reconciler.lib.errors import BangerError
from tests.drivers.kernel_builder import CONFIG, RELEASE, config_text, elf

MODULES = ModuleIndex.parse("".join(f"kernel/{need.module}.ko:\n" for need in requirements.NEEDS))


def check(config: dict[str, str] | None, index: ModuleIndex | None = None, *, kernel: bytes | None = None) -> str:
    """What is missing; empty if nothing is."""
    try:
        requirements.check(kernel if kernel is not None else elf(), config, index)
    except BangerError as problem:
        return problem.cause
    return ""


def test_all_built_in_needs_no_modules() -> None:
    assert check(CONFIG) == ""


@pytest.mark.parametrize("option", sorted(CONFIG))
def test_each_option_is_named_when_it_is_missing(option: str) -> None:
    without = {key: value for key, value in CONFIG.items() if key != option}
    assert f"CONFIG_{option} (" in check(without)


def test_all_that_is_missing_is_named_at_once() -> None:
    told = check({}, kernel=elf(pvh=False))
    assert [option for option in ("PVH", *CONFIG) if f"CONFIG_{option} (" not in told] == []


def test_a_module_counts_if_it_is_there() -> None:
    config = {**CONFIG, "SQUASHFS": "m", "VIRTIO_BLK": "m"}
    assert check(config, MODULES) == ""
    told = check(config)
    assert "CONFIG_SQUASHFS (the image: it is a module, and that is not there)" in told and "CONFIG_VIRTIO_BLK" in told
    assert "CONFIG_DEVTMPFS" in check({**CONFIG, "DEVTMPFS": "m"}, MODULES)


def test_devices_are_found_by_either_way() -> None:
    config = {**CONFIG, "ACPI": "n", "VIRTIO_MMIO_CMDLINE_DEVICES": "y"}
    assert check(config) == ""


def test_without_a_configuration_the_modules_are_asked() -> None:
    assert check(None) == "" == check(None, MODULES)
    fewer = ModuleIndex.parse("kernel/virtio_blk.ko:\n", "kernel/fs/ext4/ext4.ko\n")
    told = check(None, fewer)
    assert "CONFIG_OVERLAY_FS" in told and "CONFIG_EXT4_FS" not in told and "CONFIG_VIRTIO_BLK" not in told


def test_a_kernel_that_a_vmm_cannot_enter_is_refused() -> None:
    assert "CONFIG_PVH" in check(CONFIG, kernel=elf(pvh=False))


@pytest.mark.parametrize("kernel", [b"", b"\x7fELF", b"\x7fELF\x01" + bytes(100), elf(machine=183)])
def test_another_machine_s_is_refused(kernel: bytes) -> None:
    assert "not one for x86-64" in check(CONFIG, kernel=kernel)


def test_the_configuration_within_is_found() -> None:
    text = requirements.own_config(elf(config=CONFIG))
    assert text is not None and requirements.parse_config(text) == CONFIG
    assert requirements.own_config(elf()) is None
    assert requirements.own_config(elf() + b"IKCFG_ST\x1f\x8b\x08garbage") is None


def test_a_bomb_within_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_MAX_CONFIG", 1000)
    text = requirements.own_config(elf(config={"A": "x" * 1_000_000}))
    assert text is not None and len(text) <= 1000


def test_the_banner_has_the_release() -> None:
    assert requirements.release_of(elf()) == RELEASE
    assert requirements.release_of(elf(release=None)) is None


def test_only_what_is_set_counts() -> None:
    text = config_text(CONFIG) + '# CONFIG_MODULES is not set\nCONFIG_LOCALVERSION="-x"\n'
    assert requirements.parse_config(text) == {**CONFIG, "LOCALVERSION": '"-x"'}


def test_lying_headers_are_bounded() -> None:
    random_bytes = random.Random(2)
    for _ in range(300):
        kernel = bytearray(elf())
        for _ in range(8):
            struct.pack_into("<I", kernel, random_bytes.randrange(32, 180), random_bytes.getrandbits(32))
        check(CONFIG, kernel=bytes(kernel))


def test_what_is_only_nice_to_have_is_loaded_if_it_is_there() -> None:
    with_console = ModuleIndex.parse(
        "".join(f"kernel/{need.module}.ko:\n" for need in (*requirements.NEEDS, requirements.WISHES[0]))
    )
    assert "kernel/virtio_console.ko" in requirements.early(with_console)
    assert len(requirements.early(MODULES)) == len(requirements.NEEDS)
