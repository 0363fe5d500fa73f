"""The second reading: the winners of all layers, each with its content, as one tar that sqfstar(1) takes as it is meant.

sqfstar 4.5 cuts `../` and `/` from the beginning of a PAX `linkpath`, also of a symbolic link's, wants a point in a PAX
`mtime`, looks user names up on the host, ignores what stands twice, and gives folders that nobody describes its own user
and the present time. So this writes one canonical form: GNU long names, numeric owners, every path once, every folder.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence

from reconciler.drivers.images.layers.blobs import Blob
from reconciler.drivers.images.layers.merge import Merged
from reconciler.drivers.images.layers.records import BLOCK, Entry, Kind, Reader, Stream
from reconciler.drivers.images.layers.tree import IMPLIED

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_TYPES = {
    Kind.DIR: b"5",
    Kind.FILE: b"0",
    Kind.CHAR: b"3",
    Kind.BLOCK: b"4",
    Kind.FIFO: b"6",
}
_LONGEST = 100  # bytes of a name in a header
_TOGETHER = 256 * 1024
_MOST_PARTS = 512  # of writev(2) at once; IOV_MAX is 1024
_ZEROS = bytes(1024 * 1024)


class Output:
    """A pipe that gets small pieces together and large ones without copying them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def write(self, part: bytes | memoryview) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size >= _TOGETHER or len(self._parts) >= _MOST_PARTS:
            self.flush()

    def flush(self) -> None:
        parts = self._parts
        while parts:
            done = os.writev(self._fd, parts)
            while parts and done >= len(parts[0]):
                done -= len(parts.pop(0))
            if done:
                parts[0] = memoryview(parts[0])[done:]
        self._size = 0


def emit(merged: Merged, blobs: Sequence[Blob], output: Output, root: Callable[[Entry | None], None]) -> None:
    """Writes the tar.

    Parameters
    ----------
    root: is called once, before anything is written, with what the layers say of the root folder.
    """
    root(_root(merged, blobs))
    for path in merged.tree.implied():
        _member(output, path, _FOLDER)
    for index, blob in enumerate(blobs):
        _emit_layer(merged, index, blob, output)
    output.write(bytes(2 * BLOCK))
    output.flush()


_FOLDER = Entry(
    parts=[],
    kind=Kind.DIR,
    mode=0o755,
    uid=0,
    gid=0,
    mtime=0,
    size=0,
    stored=0,
    pieces=None,
    link=b"",
    device=(0, 0),
    xattrs={},
    doubts=[],
)


def _root(merged: Merged, blobs: Sequence[Blob]) -> Entry | None:
    wanted = merged.tree.root
    if wanted == IMPLIED:
        return None
    index = next(index for index, end in enumerate(merged.begins[1:]) if wanted < end)
    return next(entry for number, entry in _entries(merged, index, blobs[index])[1] if number == wanted)


def _entries(merged: Merged, index: int, blob: Blob) -> tuple[Reader, Iterator[tuple[int, Entry]]]:
    reader = Reader(Stream(blob.again()), whole=False)
    return reader, enumerate(reader, merged.begins[index])


def _emit_layer(merged: Merged, index: int, blob: Blob, output: Output) -> None:
    left = merged.tree.wanted(merged.begins[index], merged.begins[index + 1])
    if not left:
        return
    reader, entries = _entries(merged, index, blob)
    for number, entry in entries:
        paths = merged.tree.paths(number)
        if not paths:
            continue
        _member(output, paths[0], entry)
        if entry.kind is Kind.FILE:
            _content(output, reader, entry)
        for path in paths[1:]:
            _link(output, path, paths[0], entry)
        left -= 1
        if not left:
            return  # what follows has no part in the image


def _content(output: Output, reader: Reader, entry: Entry) -> None:
    if entry.pieces is None:
        for piece in reader.content():
            output.write(piece)
    else:
        stored = reader.content()
        rest: memoryview = memoryview(b"")
        for hole, length in entry.pieces.holes():
            for at in range(0, hole, len(_ZEROS)):
                output.write(memoryview(_ZEROS)[: hole - at])
            end = length
            while end:
                rest = rest or next(stored)
                output.write(rest[:end])
                end, rest = end - len(rest[:end]), rest[end:]
    output.write(bytes(-entry.size % BLOCK))


def _member(output: Output, path: bytes, entry: Entry) -> None:
    if entry.xattrs:
        records = b"".join(_record(b"SCHILY.xattr." + name, value) for name, value in sorted(entry.xattrs.items()))
        _extension(output, b"x", records)
    if entry.kind is Kind.SYMLINK:
        _long(output, path, entry.link)
        output.write(_block(path, entry, b"2", entry.link))
    else:
        _long(output, path, b"")
        output.write(_block(path, entry, _TYPES[entry.kind], size=entry.size))


def _link(output: Output, path: bytes, target: bytes, entry: Entry) -> None:
    _long(output, path, target)
    output.write(_block(path, entry, b"1", target))


def _long(output: Output, path: bytes, link: bytes) -> None:
    for flag, value in ((b"K", link), (b"L", path)):
        if len(value) > _LONGEST:
            _extension(output, flag, value + b"\0")


def _extension(output: Output, flag: bytes, data: bytes) -> None:
    output.write(_block(b"extension", _FOLDER, flag, size=len(data)))
    output.write(data + bytes(-len(data) % BLOCK))


def _block(path: bytes, entry: Entry, flag: bytes, link: bytes = b"", *, size: int = 0) -> bytes:
    block = _HEADER.pack(
        path,  # what is longer than its field is cut off here, and stands in full before this
        b"%07o" % entry.mode,
        _number(entry.uid, 8),
        _number(entry.gid, 8),
        _number(size, 12),
        b"%011o" % entry.mtime,
        b" " * 8,
        flag,
        link,
        b"ustar  \0",
        b"",
        b"",
        _number(entry.device[0], 8),
        _number(entry.device[1], 8),
        b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int, width: int) -> bytes:
    digits = b"%0*o" % (width - 1, value)
    return digits if len(digits) < width else b"\x80" + value.to_bytes(width - 1, "big")


def _record(keyword: bytes, value: bytes) -> bytes:
    """A PAX record, whose length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%s" % (length, rest)
