"""The entries of a tar stream: ustar, PAX, GNU long names and sparse files, old headers without a magic.

Why not `tarfile`: it reads a PAX header of any size into memory, takes a damaged header for the end, and accepts negative
sizes; and no library tells where two readers of the same bytes would disagree, which is what has to be refused. What
is here is bounded: `LARGEST_EXTENSION` bytes of extended header, and no more of a file than the chunk at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from reconciler.drivers.images.layers import fields, sparse
from reconciler.drivers.images.layers.refusal import RefusedError, shown

BLOCK = 512
LARGEST_EXTENSION = 1024 * 1024
_ZERO = bytes(BLOCK)
_NEVER_EMPTY = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
_GNU = b"ustar  \0"
_STRUCTURAL = (b"GNU.dumpdir", b"GNU.volume.", b"SCHILY.realsize", b"SCHILY.devmajor", b"SCHILY.devminor")


class Kind(IntEnum):
    """What an entry is. Small numbers, since a million of them are kept."""

    GONE = 0
    DIR = 1
    FILE = 2
    SYMLINK = 3
    CHAR = 4
    BLOCK = 5
    FIFO = 6
    HARDLINK = 7


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIR,
    b"6": Kind.FIFO,
}


@dataclass(slots=True)
class Entry:
    """One member of an archive, its numbers already within the bounds of Linux and squashfs.

    Parameters
    ----------
    parts: its path, as names below the root.
    size: bytes of its content as the image has them.
    pieces: where the stored bytes belong, if it is sparse.
    link: the target of a symbolic link, or of a hard link the path as the archive has it.
    doubts: what is told as a warning.
    """

    parts: list[bytes]
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    stored: int
    pieces: sparse.Pieces | None
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    doubts: list[str]

    @property
    def path(self) -> bytes:
        return b"/".join(self.parts)


class Stream:
    """Chunks, of which exact numbers of bytes can be taken."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Raises RefusedError if the stream ends before that many bytes."""
        end = self._at + size
        if end <= len(self._chunk):
            taken = self._chunk[self._at : end]
            self._at = end
            return taken
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """That many bytes without copying them. Raises RefusedError if the stream ends before."""
        while size:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, b""), 0
                if not self._chunk:
                    raise RefusedError("ends in the middle of its tar archive")
            piece = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        end = self._at + size
        if end <= len(self._chunk):
            self._at = end
            return
        for _ in self.pieces(size):
            pass

    def rest_is_zero(self) -> bool:
        """Reads to the end."""
        zero = not any(self._chunk[self._at :])
        for chunk in self._chunks:
            zero = zero and chunk.count(0) == len(chunk)
        return zero


class Reader:
    """Entries in their order; between two of them the caller may take the content, or leave it.

    Raises RefusedError, which names the entry.
    """

    def __init__(self, stream: Stream, *, whole: bool = True) -> None:
        self._stream = stream
        self._whole = whole
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while True:
            self._stream.skip(self._left + self._padding)
            self._left = self._padding = 0
            entry = self._next()
            if entry is None:
                return
            self._left = entry.stored
            self._padding = -entry.stored % BLOCK
            yield entry

    def content(self) -> Iterator[memoryview]:
        """The stored bytes of the present entry."""
        left, self._left = self._left, 0
        return self._stream.pieces(left)

    def _next(self) -> Entry | None:
        records: dict[bytes, bytes] | None = None
        long: dict[bytes, bytes] = {}
        while True:
            block = self._stream.take(BLOCK)
            if block == _ZERO:
                if records is not None or long:
                    raise RefusedError("has an extended header without an entry at its end")
                self._end()
                return None
            _check(block)
            flag = block[156:157]
            if flag in b"xgLK":
                data = self._extension(block)
                if flag == b"x":
                    if records is not None:
                        raise RefusedError("has two extended headers for one entry")
                    records = _records(data)
                elif flag == b"g":
                    _check_global(data)
                else:
                    if flag in long:
                        raise RefusedError("has two long names for one entry")
                    long[flag] = fields.text(data, "long name")
                continue
            return self._entry(block, records or {}, long)

    def _end(self) -> None:
        if self._stream.take(BLOCK) != _ZERO:
            raise RefusedError("has one block of zeros in the middle, where two mark the end")
        if self._whole and not self._stream.rest_is_zero():
            raise RefusedError("has something else after the end of its tar archive")

    def _extension(self, block: bytes) -> bytes:
        size = fields.number(block[124:136], "size of an extended header")
        if not 0 <= size <= LARGEST_EXTENSION:
            raise RefusedError(f"has an extended header of {size} bytes, more than {LARGEST_EXTENSION}")
        data = self._stream.take(size)
        self._stream.skip(-size % BLOCK)
        return data

    def _entry(self, block: bytes, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> Entry:
        raw = _name(block, records, long)
        try:
            return self._read(raw, block, records, long)
        except RefusedError as problem:
            raise RefusedError(f"entry {shown(raw)}: {problem}") from None

    def _read(self, raw: bytes, block: bytes, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> Entry:
        flag = block[156:157]
        kind = _KINDS.get(flag)
        if kind is None:
            raise RefusedError(f"its type {shown(flag)} is none of a file system")
        stored = _number(records, b"size", block[124:136], "size")
        if stored < 0 or stored >= 1 << 62:
            raise RefusedError(f"size {stored} is none that a file can have")
        parts = fields.components(raw)
        if raw.endswith(b"/") and flag == b"\0" and not stored:
            kind = Kind.DIR  # before ustar there was no other way to write a folder
        _check_kind(kind, raw, parts, stored)
        doubts: list[str] = []
        link = b""
        if kind in (Kind.SYMLINK, Kind.HARDLINK):
            link = fields.target(_link(block, records, long))
        device = (0, 0)
        if kind in (Kind.CHAR, Kind.BLOCK):
            major, minor = (fields.number(block[at : at + 8], "device number") for at in (329, 337))
            device = fields.device(major, minor)
            if kind is Kind.CHAR and device == (0, 0):
                raise RefusedError("character device 0:0 would be a whiteout of overlayfs")
        entry = Entry(
            parts=parts,
            kind=kind,
            mode=fields.number(block[100:108], "mode") & 0o7777,
            uid=fields.owner(_number(records, b"uid", block[108:116], "uid"), "uid"),
            gid=fields.owner(_number(records, b"gid", block[116:124], "gid"), "gid"),
            mtime=_mtime(block, records, doubts),
            size=stored,
            stored=stored,
            pieces=None,
            link=link,
            device=device,
            xattrs=_xattrs(records, doubts) if records else {},
            doubts=doubts,
        )
        if flag == b"S" or (records and sparse.named(records)):
            if kind is not Kind.FILE:
                raise RefusedError("is sparse, and is no file")
            self._sparse(entry, block, records)
        return entry

    def _sparse(self, entry: Entry, block: bytes, records: dict[bytes, bytes]) -> None:
        if block[156:157] == b"S":
            entry.pieces = sparse.gnu(block, lambda: self._stream.take(BLOCK))
        else:
            entry.pieces, used = sparse.pax(records, entry.stored, lambda: self._stream.take(BLOCK))
            entry.stored -= used
        entry.pieces.check(entry.stored)
        entry.size = entry.pieces.size


def _check(block: bytes) -> None:
    if fields.number(block[148:156], "checksum") != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise RefusedError("has a damaged header in its tar archive (the checksum is another)")
    if block[257:265] == _GNU and block[156:157] != b"S" and block[386:495].strip(b"\0"):
        # libarchive takes the size of a file from here, GNU tar does not.
        raise RefusedError("has a header with the sizes of a sparse file, and of another type")
    if block[508:512] == b"tar\0":
        raise RefusedError("is a tar archive in the format of star, which is not supported")


def _records(data: bytes) -> dict[bytes, bytes]:
    records = fields.pax_records(data)
    for keyword, value in records.items():
        if keyword.startswith(_STRUCTURAL):
            raise RefusedError(f"has an extended header {shown(keyword)}, which is not supported")
        if not value and keyword in _NEVER_EMPTY:
            raise RefusedError(
                f"has an extended header {shown(keyword)} without a value, which readers take differently"
            )
    return records


def _check_kind(kind: Kind, raw: bytes, parts: list[bytes], stored: int) -> None:
    if kind is not Kind.FILE and stored:
        raise RefusedError(f"has {stored} bytes of content, and is no file")
    if kind is not Kind.DIR and raw.endswith(b"/"):
        raise RefusedError("has a name that ends in '/', and is no folder")
    if not raw or (kind is not Kind.DIR and not parts):
        raise RefusedError("has no name")


def _check_global(data: bytes) -> None:
    for keyword in fields.pax_records(data):
        if keyword != b"comment":
            raise RefusedError(f"has a global extended header {shown(keyword)}, which would change all entries")


def _name(block: bytes, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> bytes:
    name = fields.text(block[:100], "name")
    if block[257:263] == b"ustar\0" and (prefix := fields.text(block[345:500], "prefix")):
        name = prefix + b"/" + name
    return _longer(records.get(sparse.NAME) or records.get(b"path"), long.get(b"L"), name)


def _link(block: bytes, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> bytes:
    return _longer(records.get(b"linkpath"), long.get(b"K"), fields.text(block[157:257], "link"))


def _longer(pax: bytes | None, gnu: bytes | None, plain: bytes) -> bytes:
    if pax and gnu is not None and pax != gnu:
        raise RefusedError(f"an entry has two names, {shown(pax)} and {shown(gnu)}")
    return pax or (gnu if gnu is not None else plain)


def _number(records: dict[bytes, bytes], keyword: bytes, field: bytes, what: str) -> int:
    value = records.get(keyword)
    return fields.decimal(value, what) if value else fields.number(field, what)


def _mtime(block: bytes, records: dict[bytes, bytes], doubts: list[str]) -> int:
    value = records.get(b"mtime")
    seconds = fields.pax_time(value) if value else fields.number(block[136:148], "time")
    if seconds is None or seconds != fields.clamped(seconds):
        doubts.append("its time is none that squashfs has; the nearest is taken")
    return fields.clamped(seconds or 0)


def _xattrs(records: dict[bytes, bytes], doubts: list[str]) -> dict[bytes, bytes]:
    prefix = b"SCHILY.xattr."
    found = {key[len(prefix) :]: value for key, value in records.items() if key.startswith(prefix)}
    kept = {name: value for name, value in found.items() if fields.xattr(name, value)}
    if dropped := [name for name in found if name not in kept and name != b"security.selinux"]:
        doubts.append(f"attribute {shown(dropped[0])} is dropped: squashfs has no place for it")
    if any(key.startswith(b"SCHILY.acl.") for key in records):
        doubts.append("its access control list is dropped: squashfs has no place for it")
    return kept
