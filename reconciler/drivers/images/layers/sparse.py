"""Sparse files: GNU's type `S` and the PAX formats 0.0, 0.1 and 1.0 ("Storing Sparse Files", GNU tar manual).

An image gets them whole. So their logical size counts against the budget of the image, whatever is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reconciler.drivers.images.layers import fields
from reconciler.drivers.images.layers.refusal import RefusedError, shown

NAME = b"GNU.sparse.name"
MOST = 65536
"""Pieces of one file."""
_PREFIX = b"GNU.sparse."


@dataclass(frozen=True, slots=True)
class Pieces:
    """Offset and length of what is stored, in order, and the size with all the holes."""

    where: tuple[tuple[int, int], ...]
    size: int

    def check(self, stored: int) -> None:
        """Raises RefusedError unless the pieces lie one after the other and are as long as what is stored."""
        end = 0
        for offset, length in self.where:
            if offset < end or length < 0:
                raise RefusedError("its map of a sparse file has pieces that overlap")
            end = offset + length
        if end > self.size or sum(length for _, length in self.where) != stored:
            raise RefusedError("its map of a sparse file does not fit to its sizes")

    def holes(self) -> Iterator[tuple[int, int]]:
        """The length of the hole before each piece and of that piece; at the end that of the last hole, and 0."""
        end = 0
        for offset, length in self.where:
            yield offset - end, length
            end = offset + length
        yield self.size - end, 0


def named(records: dict[bytes, bytes]) -> bool:
    """Whether an extended header makes a sparse file of its entry."""
    return any(keyword.startswith(_PREFIX) for keyword in records)


def gnu(block: bytes, more: Callable[[], bytes]) -> Pieces:
    """Of a header of type `S`, and of those that continue it."""
    size = fields.number(block[483:495], "size of a sparse file")
    where = list(_pairs(block[386:482]))
    extended = block[482]
    while extended:
        block = more()
        where += _pairs(block[:504])
        extended = block[504]
        _bounded(len(where))
    return Pieces(tuple(where), size)


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(data), 24):
        if data[at : at + 24].strip(b"\0"):
            yield (
                fields.number(data[at : at + 12], "offset of a sparse file"),
                fields.number(data[at + 12 : at + 24], "length of a sparse file"),
            )


def pax(records: dict[bytes, bytes], stored: int, more: Callable[[], bytes]) -> tuple[Pieces, int]:
    """Of a PAX header, and how many of the stored bytes are the map itself."""
    version = (records.get(_PREFIX + b"major", b"0"), records.get(_PREFIX + b"minor", b"1"))
    if version == (b"1", b"0"):
        size = fields.decimal(records.get(_PREFIX + b"realsize", b""), "size of a sparse file")
        return _map_in_content(size, stored, more)
    if version != (b"0", b"1") or _PREFIX + b"map" not in records:
        # Format 0.0 repeats its keywords, which no other header does; GNU tar wrote it in 2004.
        raise RefusedError(f"its format of sparse files {shown(b'.'.join(version))} is not supported")
    size = fields.decimal(records.get(_PREFIX + b"size", b""), "size of a sparse file")
    numbers = records[_PREFIX + b"map"].split(b",") if records[_PREFIX + b"map"] else []
    _bounded(len(numbers) // 2)
    return _paired([fields.decimal(value, "map of a sparse file") for value in numbers], size), 0


def _map_in_content(size: int, stored: int, more: Callable[[], bytes]) -> tuple[Pieces, int]:
    numbers: list[int] = []
    used = 0
    text = b""
    while not numbers or len(numbers) < 2 * numbers[0] + 1:
        if used >= stored or len(text) > 512:
            raise RefusedError("its map of a sparse file does not end")
        *lines, text = (text + more()).split(b"\n")
        used += 512
        numbers += [
            fields.decimal(line, "map of a sparse file") for line in lines[: _wanted(numbers, lines) - len(numbers)]
        ]
        _bounded(numbers[0] if numbers else 0)
    return _paired(numbers[1:], size), used


def _wanted(numbers: list[int], lines: list[bytes]) -> int:
    """How many numbers the map has, of which the first says it."""
    first = numbers[0] if numbers else fields.decimal(lines[0], "map of a sparse file") if lines else 0
    return 2 * first + 1


def _paired(numbers: list[int], size: int) -> Pieces:
    if len(numbers) % 2:
        raise RefusedError("its map of a sparse file has an odd number of numbers")
    return Pieces(tuple(zip(numbers[::2], numbers[1::2], strict=True)), size)


def _bounded(pieces: int) -> None:
    if pieces > MOST:
        raise RefusedError(f"its map of a sparse file has more than {MOST} pieces")
