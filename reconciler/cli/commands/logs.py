"""`banger logs`."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from reconciler.cli import target, wire
from reconciler.cli.options import file_option, option, vm_argument
from reconciler.cli.terminal import harmless
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths

_BLOCK = 1 << 16
_POLL_SECONDS = 0.2
# A guest that never ends its line must not make us keep it for ever.
_LONGEST_LINE = 1 << 16


@click.command()
@file_option(short=False)
@option("-f", "--follow", is_flag=True, help="Go on as the guest writes, until Ctrl-C.")
@option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines. [default: all]")
@option("--provision", is_flag=True, help="Instead, what the steps of its `provision` said.")
@vm_argument()
def logs(*, file: Path | None, follow: bool, lines: int | None, provision: bool, vm: str) -> None:
    """Show the serial console of a VM.

    On a terminal, control characters of the guest are shown, not obeyed; elsewhere its bytes arrive as they are.
    """
    with wire.service() as service:
        ref = target.vm(service, vm, file)
        path = service.console_log(ref)
    if provision:
        path = VmPaths(path.parent, path.parent).provision_log
    try:
        with path.open("rb") as log:
            if lines is not None:
                log.seek(last_lines(log, lines))
            blocks = follow_blocks(log, path) if follow else read_blocks(log)
            if sys.stdout.isatty():
                for text in readable(blocks):
                    sys.stdout.write(text)
                    sys.stdout.flush()
            else:
                for block in blocks:
                    sys.stdout.buffer.write(block)
                    sys.stdout.buffer.flush()
    except FileNotFoundError:
        raise BangerError(f"vm {ref} has no console log yet", hint="it has one once it was started") from None


def last_lines(log: BinaryIO, count: int) -> int:
    """The offset at which the last `count` lines of a file begin; reads from its end, a block at a time."""
    end = log.seek(0, os.SEEK_END)
    if count == 0:
        return end
    position, found = end, 0
    while position > 0:
        step = min(_BLOCK, position)
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
    return 0


def read_blocks(log: BinaryIO) -> Iterator[bytes]:
    """The rest of a file."""
    while block := log.read(_BLOCK):
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
