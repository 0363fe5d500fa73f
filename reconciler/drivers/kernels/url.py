"""Kernels by address or from a file: an ELF or a bzImage, with an archive of modules or with all that is needed built in.

The archive is a tar, plain or compressed, with `lib/modules/RELEASE` at any depth, as `make modules_install` and
`make tar-pkg` leave it. Of it only plain files are taken, by names that are checked here; it is never unpacked by a
program that would follow what it says of links, owners or devices.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
from pathlib import Path
from typing import IO, cast

import zstandard

from reconciler.drivers.kernels.extract import MAX_VMLINUX, vmlinux
from reconciler.drivers.kernels.parts import Modules, Parts, indexed
from reconciler.drivers.kernels.requirements import release_of
from reconciler.lib.download import download
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.units import GIB, MIB, human_size
from reconciler.model.artifacts import UrlKernel

MAX_ARCHIVE = 2 * GIB
MAX_UNPACKED = 4 * GIB
MAX_FILES = 50_000
_MAX_DESCRIPTION = 64 * 1024
_CHUNK = MIB
_MODULE = re.compile(r"(?:.*/)?lib/modules/([A-Za-z0-9._+~-]+)/((?:[A-Za-z0-9_,.+@=-]+/)*[A-Za-z0-9_,.+@=-]+)")
_WANTED = re.compile(r".*\.ko(?:\.(?:xz|gz|zst))?|modules\.(?:builtin|builtin\.modinfo|order)")
_DESCRIBING = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def obtain(source: UrlKernel, paths: Paths, scratch: Path, progress: Progress) -> Parts:
    """Raises BangerError: retryable if a server did not answer, else terminal."""
    share = 0.4 if source.modules else 0.9
    download(source.url, source.sha256, scratch / "kernel", Share(progress, share), limit=MAX_VMLINUX)
    elf = vmlinux(scratch / "kernel")
    modules: Modules | None = None
    if source.modules is not None:
        archive = scratch / "modules.archive"
        download(source.modules.url, source.modules.sha256, archive, Share(progress, 0.4, 0.4), limit=MAX_ARCHIVE)
        progress.update(0.8, "unpacking its modules")
        release = unpack(archive, scratch / "modules")
        if (own := release_of(elf)) is not None and own != release:
            raise BangerError(f"the modules are those of {release}, and the kernel is {own}")
        modules = indexed(scratch / "modules", scratch / "base", release)
    return Parts(elf=elf, modules=modules)


def unpack(archive: Path, into: Path) -> str:
    """Writes the modules of an archive below `into`, which it makes, and returns their release.

    Raises BangerError if there are none, or those of several kernels, or too much, or if the archive is damaged.
    """
    into.mkdir()
    releases: set[str] = set()
    size = count = 0
    try:
        with archive.open("rb") as raw, tarfile.open(fileobj=_plain(raw), mode="r|", tarinfo=_Member) as members:
            for member in members:
                count += 1
                size += member.size
                if count > MAX_FILES or size > MAX_UNPACKED:
                    raise BangerError(
                        f"the archive of modules has more than {MAX_FILES} files or {human_size(MAX_UNPACKED)}"
                    )
                match = _MODULE.fullmatch(member.name.removeprefix("./"))
                if (
                    match is None
                    or not member.isreg()
                    or not _WANTED.fullmatch(match[2])
                    or ".." in match[2].split("/")
                ):
                    continue
                releases.add(match[1])
                if len(releases) > 1:
                    raise BangerError(f"the archive has modules of several kernels: {', '.join(sorted(releases))}")
                _write(members, member, into / match[2])
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        raise BangerError(f"the archive of modules is damaged: {problem}") from problem
    if not releases:
        raise BangerError(
            "the archive has no file below lib/modules/RELEASE", hint="make one: make tar-pkg, or make modules_install"
        )
    return releases.pop()


class _Member(tarfile.TarInfo):
    """A header whose description of the next one is small: tarfile reads it into memory whole, whatever its size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _DESCRIBING and self.size > _MAX_DESCRIPTION:
            raise tarfile.ReadError("it has a header of " + human_size(self.size))
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # the way in that tarfile has
        return found


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = members.extractfile(member)
    assert content is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        left = member.size
        while left:
            piece = content.read(min(left, _CHUNK))
            if not piece:
                raise EOFError("it is cut off")
            file.write(piece)
            left -= len(piece)


def _plain(raw: IO[bytes]) -> IO[bytes]:
    """The archive without its compression, which its first bytes tell."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(raw))
    if magic.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], lzma.open(raw))
    if magic.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(raw))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(IO[bytes], zstandard.ZstdDecompressor(max_window_size=128 * MIB).stream_reader(raw))
    return raw
