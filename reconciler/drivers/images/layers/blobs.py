"""The bytes of a layer: read, verified and decompressed, with bounds on time, size and memory.

gzip is RFC 1952: several members are one stream, and anything else after them is refused. zstd is RFC 8878, whose
frames may be several, too, and with a window of at most `WINDOW`. No call decompresses more than `CHUNK` at a time, so
that a bomb costs its budget and no memory.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from zlib_ng import zlib_ng

from reconciler.drivers.images.layers.refusal import RefusedError

CHUNK = 512 * 1024
"""Bytes that are handed on at once."""
WINDOW = 32 * 1024 * 1024
"""Bytes of a zstd window: four times what every decoder has to support, and what level 20 uses."""
_READ = 128 * 1024
_AHEAD = 4
_GZIP = 31  # zlib's "window bits" for a gzip header and trailer


class Encoding(StrEnum):
    """How a layer's tar is compressed."""

    PLAIN = "plain"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def magic(self) -> bytes:
        return {Encoding.PLAIN: b"", Encoding.GZIP: b"\x1f\x8b", Encoding.ZSTD: b"\x28\xb5\x2f\xfd"}[self]


class Budget:
    """How many bytes all layers of an image may still unpack to."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def take(self, size: int) -> None:
        self.used += size
        if self.used > self.most:
            raise RefusedError(f"unpacks to more than the {self.most} bytes that an image may have")


class Verified:
    """A file's bytes, counted and hashed on the way."""

    def __init__(self, file: BinaryIO, digest: str, size: int, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._wanted = (digest, size)
        self._hash = hashlib.sha256()
        self._size = 0
        self._on_read = on_read

    def read(self, size: int = _READ) -> bytes:
        data = self._file.read(size)
        self._size += len(data)
        self._hash.update(data)
        self._on_read(len(data))
        return data

    def check(self) -> None:
        """Raises RefusedError unless what was read up to the end is what the descriptor says."""
        while self.read():
            pass
        digest, size = self._wanted
        if self._size != size:
            raise RefusedError(f"has {self._size} bytes, and not the {size} of its descriptor")
        if f"sha256:{self._hash.hexdigest()}" != digest:
            raise RefusedError(f"has the digest sha256:{self._hash.hexdigest()}, and not {digest}")


class Blob:
    """One layer as a stream of its tar's bytes.

    Parameters
    ----------
    diff_id: of the uncompressed bytes (image specification, "Layer DiffID"); None if nobody says.
    on_read: gets the count of compressed bytes that were read.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        digest: str,
        size: int,
        diff_id: str | None,
        *,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.encoding = encoding
        self.digest = digest
        self.size = size
        self.diff_id = diff_id
        self.on_read = on_read

    def verified(self, budget: Budget) -> Iterator[bytes]:
        """All of it. Raises RefusedError at a bound, and at the end if digest, size or diff id are others."""
        with self.path.open("rb", buffering=0) as file:
            source = Verified(file, self.digest, self.size, self.on_read)
            diff = hashlib.sha256()
            for chunk in ahead(self._decoded(source)):
                budget.take(len(chunk))
                if self.diff_id:
                    diff.update(chunk)
                yield chunk
            source.check()
            if self.diff_id and f"sha256:{diff.hexdigest()}" != self.diff_id:
                raise RefusedError(f"unpacks to sha256:{diff.hexdigest()}, and not to its diff id {self.diff_id}")

    def again(self) -> Iterator[bytes]:
        """The same once more, for a reader who saw `verified` to its end; it may stop anywhere."""
        with self.path.open("rb", buffering=0) as file:
            yield from ahead(self._decoded(_Plain(file, self.on_read)))

    def _decoded(self, source: Verified | _Plain) -> Iterator[bytes]:
        match self.encoding:
            case Encoding.GZIP:
                return _gunzip(source)
            case Encoding.ZSTD:
                return _unzstd(source)
            case Encoding.PLAIN:
                return iter(lambda: source.read(CHUNK), b"")


class _Plain:
    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def read(self, size: int = _READ) -> bytes:
        data = self._file.read(size)
        self._on_read(len(data))
        return data


def _gunzip(source: Verified | _Plain) -> Iterator[bytes]:
    pending = source.read()
    if not pending.startswith(Encoding.GZIP.magic):
        raise RefusedError("is not compressed with gzip, as its media type says")
    member = zlib_ng.decompressobj(wbits=_GZIP)
    while pending:
        try:
            chunk = member.decompress(pending, CHUNK)
        except zlib_ng.error as problem:  # type: ignore[misc]  # the package's types have it as a value
            raise RefusedError(f"is damaged: gzip: {problem}") from None
        pending = member.unconsumed_tail
        if chunk:
            yield chunk
        if member.eof:
            pending = member.unused_data or source.read()
            if pending:
                if len(pending) < len(Encoding.GZIP.magic):
                    pending += source.read()
                if not pending.startswith(Encoding.GZIP.magic):
                    raise RefusedError("has something else after its gzip data")
                member = zlib_ng.decompressobj(wbits=_GZIP)
        elif not pending and len(chunk) < CHUNK:
            pending = source.read()
        elif not pending:
            # The output was full exactly at the end of the input: more may wait inside.
            while chunk := member.decompress(b"", CHUNK):
                yield chunk
            pending = source.read()
    if not member.eof:
        raise RefusedError("ends in the middle of its gzip data")


def _unzstd(source: Verified | _Plain) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(
        cast(BinaryIO, source), read_size=_READ, read_across_frames=True
    )
    try:
        yield from iter(lambda: reader.read(CHUNK), b"")
    except zstandard.ZstdError as problem:
        raise RefusedError(f"is damaged, or needs a window of more than {WINDOW} bytes: zstd: {problem}") from None


def ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, made by a thread that is a few of them ahead: decompressing takes no interpreter lock."""
    made: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=_AHEAD)
    wanted = threading.Event()
    wanted.set()

    def work() -> None:
        try:
            for chunk in chunks:
                made.put(chunk)
                if not wanted.is_set():
                    return
            made.put(None)
        except BaseException as problem:
            made.put(problem)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (got := made.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        wanted.clear()
        while thread.is_alive():
            try:
                made.get_nowait()
            except queue.Empty:
                thread.join(0.01)
