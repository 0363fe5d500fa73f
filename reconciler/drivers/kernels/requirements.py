"""What a kernel must have to boot our VMs, asked before it is published: a missing option costs a word, not a boot.

The kernel tells of itself in three ways: its ELF notes (whether a VMM can enter it, Documentation/arch/x86/boot.rst and
the PVH boot protocol of Xen), its banner (the release), and its configuration, from a file beside it or from within
(CONFIG_IKCONFIG). Without a configuration only the modules can be asked.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.drivers.kernels.modules import ModuleIndex
from reconciler.lib.errors import BangerError
from reconciler.lib.units import MIB


@dataclass(frozen=True, slots=True)
class Need:
    """Something that may be built in or a module of its own.

    Parameters
    ----------
    module: the module's name, if it is one.
    option: the configuration option, without `CONFIG_`.
    purpose: what is not possible without it.
    """

    module: str
    option: str
    purpose: str


NEEDS = (
    Need("virtio_mmio", "VIRTIO_MMIO", "the bus of a microVM"),
    Need("virtio_blk", "VIRTIO_BLK", "disks"),
    Need("virtio_net", "VIRTIO_NET", "the network"),
    Need("overlay", "OVERLAY_FS", "the writable root file system"),
    Need("squashfs", "SQUASHFS", "the image"),
    Need("ext4", "EXT4_FS", "overlay and volumes"),
)
WISHES = (
    Need("virtio_console", "VIRTIO_CONSOLE", "the guest agent"),
    Need("virtio_rng", "HW_RANDOM_VIRTIO", "random numbers from the host"),
)
_BUILT_IN = (
    ("BLK_DEV_INITRD", "the initramfs"),
    ("BINFMT_ELF", "programs"),
    ("BINFMT_SCRIPT", "the first program, a script"),
    ("DEVTMPFS", "/dev"),
    ("TMPFS", "/run"),
    ("SYSFS", "finding disks"),
    ("PROC_FS", "/proc"),
    ("SERIAL_8250_CONSOLE", "the console"),
)
# Either tells the kernel where a microVM's devices are.
_DISCOVERY = ("ACPI", "VIRTIO_MMIO_CMDLINE_DEVICES")

_LINE = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_BANNER = re.compile(rb"Linux version ([0-9][0-9A-Za-z.+~_-]{2,63}) ")
_IKCONFIG = re.compile(rb"IKCFG_ST(\x1f\x8b\x08)")
_MAX_CONFIG = 4 * MIB
_PT_NOTE, _EM_X86_64, _PVH_ENTRY = 4, 62, 18  # elf(5); XEN_ELFNOTE_PHYS32_ENTRY of xen/interface/elfnote.h
_MAX_NOTES = 64 * 1024


def parse_config(text: str) -> dict[str, str]:
    """Option → its value, for each that is set."""
    return {match[1]: match[2] for line in text.splitlines() if (match := _LINE.fullmatch(line))}


def own_config(elf: bytes) -> str | None:
    """The configuration that the kernel has within, if it was built with CONFIG_IKCONFIG (kernel/configs.c)."""
    if (found := _IKCONFIG.search(elf)) is None:
        return None
    try:
        text = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(elf[found.start(1) :], _MAX_CONFIG)
    except zlib.error:
        return None  # the mark is in the kernel that looks for it, too
    return text.decode("ascii", "replace")


def release_of(elf: bytes) -> str | None:
    """As `uname -r` shows it; None if the kernel has no banner."""
    found = _BANNER.search(elf)
    return found[1].decode("ascii") if found else None


def check(elf: bytes, config: Mapping[str, str] | None, index: ModuleIndex | None) -> None:
    """Raises BangerError, which names everything that is missing.

    Parameters
    ----------
    config: the kernel's configuration, as far as it is known.
    index: its modules; None if it has none, so that all must be built in.
    """
    if len(elf) < 64 or elf[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", elf, 18)[0] != _EM_X86_64:
        raise BangerError("the kernel is not one for x86-64")
    missing = [] if has_pvh_entry(elf) else ["PVH (how a VMM enters it: its ELF note is not there)"]
    if config is not None:
        missing += [f"{option} ({purpose})" for option, purpose in _BUILT_IN if config.get(option) != "y"]
        missing += [] if any(config.get(option) == "y" for option in _DISCOVERY) else ["ACPI (finding devices)"]
        missing += filter(None, (_lack(need, config, index) for need in NEEDS))
    elif index is not None:
        there = index.builtin | index.needs.keys()
        missing += [f"{need.option} ({need.purpose})" for need in NEEDS if need.module not in there]
    if missing:
        raise BangerError(
            f"the kernel lacks what microVMs need: {', '.join(f'CONFIG_{option}' for option in missing)}",
            hint="choose a kernel for virtual machines, such as linux-image-cloud-amd64, or build it with these",
        )


def early(index: ModuleIndex) -> tuple[str, ...]:
    """The modules that stand between the kernel and the image's init, in the order in which they load."""
    there = index.builtin | index.needs.keys()
    wishes = [wish.module for wish in WISHES if wish.module in there]
    return index.load_order([*(need.module for need in NEEDS), *wishes])


def has_pvh_entry(elf: bytes) -> bool:
    """Whether one of the notes is that of the PVH boot protocol, by which QEMU enters an ELF."""
    return any(name == b"Xen" and kind == _PVH_ENTRY for name, kind in _notes(elf))


def _lack(need: Need, config: Mapping[str, str], index: ModuleIndex | None) -> str | None:
    match config.get(need.option):
        case "y":
            return None
        case "m" if index is not None and need.module in index.needs:
            return None
        case "m":
            return f"{need.option} ({need.purpose}: it is a module, and that is not there)"
        case _:
            return f"{need.option} ({need.purpose})"


def _notes(elf: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and type of each note (elf(5), "Notes"). What points outside of the file is passed over."""
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    if size < 56 or offset + size * count > len(elf):
        return
    for at in range(offset, offset + size * count, size):
        if struct.unpack_from("<I", elf, at)[0] != _PT_NOTE:
            continue
        start, length = struct.unpack_from("<Q", elf, at + 8)[0], struct.unpack_from("<Q", elf, at + 32)[0]
        notes = elf[start : start + min(length, _MAX_NOTES)]
        position = 0
        while position + 12 <= len(notes):
            name, content, kind = struct.unpack_from("<III", notes, position)
            position += 12
            yield notes[position : position + name].rstrip(b"\0"), kind
            position += (name + 3 & ~3) + (content + 3 & ~3)
