"""Reads a log that another program writes: its last lines, what is added to it, and all of it fit for a terminal."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from reconciler.cli.terminal import harmless
from reconciler.lib import logfile

_BLOCK = 1 << 16
_POLL_SECONDS = 0.2
# A guest that never ends its line must not make us keep it for ever.
_LONGEST_LINE = 1 << 16


def last_lines(log: BinaryIO, count: int, floor: int = 0) -> int:
    """The offset, `floor` at least, at which the last `count` lines of a file begin; reads a block at a time from its end."""
    end = log.seek(0, os.SEEK_END)
    if count == 0:
        return end
    position, found = end, 0
    while position > floor:
        step = min(_BLOCK, position - floor)
        position -= step
        log.seek(position)
        block = log.read(step)
        # The newline that ends the file begins no line.
        stop = len(block) - 1 if position + step == end and block.endswith(b"\n") else len(block)
        while (newline := block.rfind(b"\n", 0, stop)) >= 0:
            found += 1
            if found == count:
                return position + newline + 1
            stop = newline
    return floor


def read_blocks(log: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, but for what was let go of."""
    while True:
        at = log.tell()
        start = logfile.beginning(log.fileno(), at)
        if start != at:
            log.seek(start)
        block = log.read(_BLOCK)
        if not block:
            return
        yield block


def follow_blocks(log: BinaryIO, path: Path) -> Iterator[bytes]:
    """The rest of a file and whatever is added, for ever; also when it is cut short or replaced (tail(1), -F)."""
    while True:
        yield from read_blocks(log)
        try:
            now = path.stat()
        except FileNotFoundError:
            time.sleep(_POLL_SECONDS)
            continue
        here = os.fstat(log.fileno())
        if (now.st_dev, now.st_ino) != (here.st_dev, here.st_ino):
            with path.open("rb") as successor:
                # Onto the old descriptor, so that whoever opened the log closes what is open at the end.
                os.dup2(successor.fileno(), log.fileno())
            log.seek(0)
        elif here.st_size < log.tell():
            log.seek(0)
        else:
            time.sleep(_POLL_SECONDS)


def readable(blocks: Iterator[bytes]) -> Iterator[str]:
    """Blocks as text that is safe on a terminal, cut at line ends so that no escape sequence is torn in two."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for block in blocks:
        rest += decoder.decode(block)
        whole, newline, rest = rest.rpartition("\n")
        if newline:
            yield harmless(whole + newline)
        # A prompt has no newline: it is shown, unless it ends in what may be half an escape sequence.
        if rest and ("\x1b" not in rest[-16:] or len(rest) > _LONGEST_LINE) and not rest.endswith("\r"):
            yield harmless(rest)
            rest = ""
    if rest:
        yield harmless(rest)
