"""Which modules the initramfs has to load, and in which order: what modules.dep(5) says.

Names are compared as modprobe(8) does: `-` and `_` are the same.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import zstandard

from reconciler.lib.errors import BangerError
from reconciler.lib.units import MIB

_MAX_MODULE = 64 * MIB


@dataclass(frozen=True, slots=True)
class ModuleIndex:
    """What depmod(8) found out about one kernel: paths are relative to its `lib/modules/<release>`.

    Parameters
    ----------
    needs: for each module's name, its path and those of what it needs.
    builtin: names of what is in the kernel itself.
    before: for each module's name, what modules.softdep wants to be loaded first.
    aliases: names that stand for a module, such as `crc32c` for `crc32c_generic`.
    """

    needs: Mapping[str, tuple[str, tuple[str, ...]]]
    builtin: frozenset[str]
    before: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> ModuleIndex:
        """Reads the files that `depmod` wrote into `lib/modules/<release>`."""

        def text(name: str) -> str:
            path = folder / name
            return path.read_text() if path.exists() else ""

        return cls.parse(text("modules.dep"), text("modules.builtin"), text("modules.softdep"), text("modules.alias"))

    @classmethod
    def parse(cls, dep: str, builtin: str = "", softdep: str = "", alias: str = "") -> ModuleIndex:
        """Takes the files' contents. Raises BangerError for a line of modules.dep that has no colon."""
        needs: dict[str, tuple[str, tuple[str, ...]]] = {}
        for line in filter(None, map(str.strip, dep.splitlines())):
            path, colon, rest = line.partition(":")
            if not colon:
                raise BangerError(f"modules.dep is damaged: {line!r} has no colon")
            needs[module_name(path)] = (path, tuple(rest.split()))
        before: dict[str, tuple[str, ...]] = {}
        for words in (line.split() for line in softdep.splitlines()):
            if len(words) > 3 and words[0] == "softdep" and "pre:" in words:
                wanted = words[words.index("pre:") + 1 :]
                wanted = wanted[: wanted.index("post:")] if "post:" in wanted else wanted
                before[_normal(words[1])] = tuple(map(_normal, wanted))
        aliases: dict[str, str] = {}
        for words in (line.split() for line in alias.splitlines()):
            if len(words) == 3 and words[0] == "alias" and ":" not in words[1] and "*" not in words[1]:
                alias_name, module = _normal(words[1]), _normal(words[2])
                # Of several, the one that runs on every processor: another may refuse to load.
                if module.endswith("_generic") or alias_name not in aliases:
                    aliases[alias_name] = module
        names = frozenset(module_name(line) for line in builtin.split())
        return cls(needs, names, before, aliases)

    def load_order(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Paths of all that has to be loaded for `wanted`, each after what it needs.

        What is built in is left out. Raises BangerError for a module that this kernel does not have, and for
        modules that need each other.
        """
        order: dict[str, None] = {}
        for name in map(_normal, wanted):
            if name not in self.needs and name not in self.builtin:
                raise BangerError(
                    f"the kernel has no module {name}, which microVMs need",
                    hint="choose a kernel for virtual machines, such as linux-image-cloud-amd64",
                )
            self._visit(name, order, ())
        return tuple(order)

    def _visit(self, name: str, order: dict[str, None], above: tuple[str, ...]) -> None:
        if name in above:
            raise BangerError(f"these modules need each other: {' -> '.join((*above[above.index(name) :], name))}")
        if name not in self.needs:
            if name in self.builtin:
                return
            raise BangerError(f"modules.dep says that {above[-1]} needs {name}, but has no such module")
        path, needed = self.needs[name]
        if path in order:
            return
        above = (*above, name)
        for soft in self.before.get(name, ()):
            found = soft if soft in self.needs else self.aliases.get(soft, soft)
            # A soft dependency may be missing, and may be circular (modprobe.d(5)): it is a wish.
            if found in self.needs and found not in above:
                self._visit(found, order, above)
        for dependency in needed:
            self._visit(module_name(dependency), order, above)
        order[path] = None


def module_name(path: str) -> str:
    """`kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`."""
    return _normal(PurePosixPath(path).name.partition(".ko")[0])


def plain_module(path: str, raw: bytes) -> bytes:
    """A module's ELF, unpacked if it is a `.ko.xz`, `.ko.zst` or `.ko.gz`: an initramfs loads plain ones only."""
    name = PurePosixPath(path).name
    try:
        match PurePosixPath(path).suffix:
            case ".xz":
                raw = lzma.LZMADecompressor().decompress(raw, _MAX_MODULE)
            case ".gz":
                raw = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(raw, _MAX_MODULE)
            case ".zst":
                with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
                    raw = reader.read(_MAX_MODULE)
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError) as problem:
        raise BangerError(f"the module {name} is damaged: {problem}") from problem
    if raw[:4] != b"\x7fELF":
        raise BangerError(f"the module {name} is not an ELF object")
    return raw


def _normal(name: str) -> str:
    return name.replace("-", "_")
