"""The journal of a guest (journald, systemd-journald.service(8)), read by its own journalctl."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reconciler.api.service import Channel, VmRef, WayIn
from reconciler.cli import guestrun, joining, wire
from reconciler.cli.logreading import readable
from reconciler.lib.errors import BangerError
from reconciler.model.guestline import BUSYBOX

USER = "root"
"""Others see only what is their own."""
_MISSING = 127
_LOOK = f'command -v journalctl >/dev/null || exit {_MISSING}; exec journalctl "$@"'
_BLOCK = 1 << 16


def command(*, follow: bool, lines: int | None, since: float | None) -> list[str]:
    """What is run in the guest. `since` in seconds since the epoch; the guest's clock may be another one, its age is not."""
    words = ["--no-pager", "--all"]
    if since is not None:
        words.append(f"--since=-{max(0, round(time.time() - since))}s")
    if lines is not None:
        words.append(f"--lines={lines}")
    if follow:
        words += ["--follow"] if lines is not None else ["--follow", "--no-tail"]
    return [BUSYBOX, "sh", "-c", _LOOK, "sh", *words]


def show(ref: VmRef, way: WayIn, words: Sequence[str]) -> int:
    """Shows it, and returns the exit code. Raises BangerError for a guest that has none."""
    with _harmless_stdout():
        if way.channel is Channel.AGENT:
            code = wire.run_by_agent(way, words, cwd=None, env={}, timeout=None)
        else:
            entry, failed = joining.join(way)
            code = guestrun.over_ssh(entry, words) if failed is None else failed
    if code == _MISSING:
        raise BangerError(
            f"vm {ref} keeps no journal: its image has no journalctl",
            hint=f"banger logs {ref} shows what it wrote to its serial console",
        )
    return code


@contextmanager
def _harmless_stdout() -> Iterator[None]:
    """On a terminal, what is written to stdout meanwhile, by children too, moves no cursor and sets no title."""
    if not sys.stdout.isatty():
        yield
        return
    sys.stdout.flush()
    out, (reading, writing) = os.dup(1), os.pipe()

    def blocks() -> Iterator[bytes]:
        while block := os.read(reading, _BLOCK):
            yield block

    def copy() -> None:
        with open(out, "w", encoding="utf-8", errors="replace", closefd=False) as terminal:  # a descriptor
            for text in readable(blocks()):
                terminal.write(text)
                terminal.flush()

    copier = threading.Thread(target=copy, daemon=True)
    os.dup2(writing, 1)
    os.close(writing)
    copier.start()
    try:
        yield
    finally:
        os.dup2(out, 1)
        copier.join(5.0)
        os.close(out)
