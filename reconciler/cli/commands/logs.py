"""`banger logs`."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from reconciler.api.service import VmRef
from reconciler.cli import target, wire
from reconciler.cli.logreading import follow_blocks, last_lines, read_blocks, readable
from reconciler.cli.options import file_option, option, vm_argument
from reconciler.cli.terminal import say
from reconciler.lib import logfile
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import VmPaths
from reconciler.lib.units import parse_duration


class Moment(click.ParamType[float]):
    """`10m` ago, `2026-01-31 12:00`, `12:00` of today: seconds since the epoch. Local time, unless it names a zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip()
        try:
            return time.time() - parse_duration(text)
        except ValueError:
            pass
        # Of today, if only a time of day is given.
        for prefix in ("", f"{datetime.now().astimezone():%Y-%m-%d} " if ":" in text else ""):
            try:
                return datetime.fromisoformat(prefix + text).timestamp()
            except (ValueError, OverflowError):
                continue
        return self.fail(f"{value!r} is no time; write how long ago, such as 10m, or 2026-01-31T12:00:00", param, ctx)


@click.command()
@file_option(short=False)
@option("-f", "--follow", is_flag=True, help="Go on as the guest writes, through restarts, until Ctrl-C.")
@option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines. [default: all]")
@option("--since", type=Moment(), metavar="TIME", help="Only what is newer than 10m, or than 2026-01-31T12:00:00.")
@option("--journal", is_flag=True, help="Instead, the guest's journal, if it keeps one.")
@option("--provision", is_flag=True, help="Instead, what the steps of its `provision` said.")
@vm_argument()
def logs(
    *,
    file: Path | None,
    follow: bool,
    lines: int | None,
    since: float | None,
    journal: bool,
    provision: bool,
    vm: str,
) -> int:
    """Show the serial console of a VM.

    What it wrote in all its runs; of more than 16 MiB, the newest 8 MiB are kept. Times are known to the second while VMs
    run, so what --since shows may begin a little earlier, and is never too little.

    On a terminal, control characters of the guest are shown, not obeyed; elsewhere its bytes arrive as they are.
    """
    if provision and (journal or since is not None):
        raise click.UsageError("--provision goes neither with --journal nor with --since: its lines have no times.")
    with wire.service() as service:
        ref = target.vm(service, vm, file)
        if journal:
            from reconciler.cli import journal as of_guest  # noqa: PLC0415  # the console needs no way in

            way = service.way_in(ref, of_guest.USER)
        else:
            path = service.console_log(ref)
    if journal:
        return of_guest.show(ref, way, of_guest.command(follow=follow, lines=lines, since=since))
    if provision:
        path = VmPaths(path.parent, path.parent).provision_log
    _show(ref, path, follow=follow, lines=lines, since=since)
    return 0


def _show(ref: VmRef, path: Path, *, follow: bool, lines: int | None, since: float | None) -> None:
    try:
        with path.open("rb") as log:
            log.seek(_start(log, path, lines, since))
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


def _start(log: BinaryIO, path: Path, lines: int | None, since: float | None) -> int:
    """The offset of the first byte to show."""
    first = start = logfile.first_line(log)
    if since is not None:
        known = logfile.since(path, since)
        if known is None:
            say("when what was written is not recorded for this VM: nothing is left out")
        start = max(start, known or 0)
    if lines is not None:
        start = max(start, last_lines(log, lines, floor=first))
    elif start == first > 0:
        say("what is older is gone: the newest 8 to 16 MiB are kept")
    return start
