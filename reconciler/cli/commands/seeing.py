"""`banger vm show` and `banger vm stats`, and `banger top`: what a VM is, and what it uses."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from reconciler.api.service import Service, VmRef
from reconciler.cli import target, wire
from reconciler.cli.options import Duration, Output, VmName, all_option, file_option, option, output_option, vm_argument
from reconciler.cli.render import document, listing
from reconciler.cli.terminal import draws, put, say
from reconciler.cli.usage import Meter, usage_json, usage_table
from reconciler.lib.errors import UsageError
from reconciler.lib.units import format_duration
from reconciler.model.usage import VmUsage

Command = Callable[..., Any]

_EVENTS = 5
_SHORTEST = 0.01  # seconds: the kernel counts a CPU's time in hundredths
_WHICH = "The file whose environment is meant. [default: ./banger.yaml; without it, all environments]"


def _interval_option(default: str, text: str) -> Callable[[Command], Command]:
    def long_enough(ctx: click.Context, param: click.Parameter, value: float) -> float:
        if value < _SHORTEST:
            raise click.BadParameter(f"{format_duration(value)} is too short to measure in; at least 10ms")
        return value

    return option(
        "--interval",
        type=Duration(),
        default=default,
        show_default=True,
        metavar="DURATION",
        callback=long_enough,
        help=text,
    )


@click.command()
@file_option()
@output_option()
@vm_argument()
def show(*, file: Path | None, output: Output, vm: str) -> None:
    """Show everything about one VM, observed now.

    Its state and why, what it was given, what it uses, how it is reached, its disks, and the last five things that happened
    to it.
    """
    from reconciler.cli import portrait  # noqa: PLC0415  # `stats` needs none of it

    with wire.service() as service:
        ref = target.vm(service, vm, file)
        item = next((i for i in service.status(ref.environment) if i.kind == "vm" and i.name == ref.name), None)
        if item is None:
            raise UsageError(f"vm {ref} has just gone", hint="banger vm trash lists what may come back")
        usage = next((found for found in service.usage(ref.environment) if found.name == ref.name), None)
        log = service.console_log(ref)
        happened = [event for event in service.events(ref.environment, None, False) if event.object == f"vm/{ref.name}"]
    events = happened[-_EVENTS:]
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([portrait.to_json(item, usage, log, events)]), output))
        case Output.NAME:
            put(f"vm/{ref}")
        case _:
            put("\n".join(portrait.lines(item, usage, log, events)))


@click.command()
@click.argument("vms", metavar="[VM]...", nargs=-1, type=VmName())
@file_option(text=_WHICH)
@all_option()
@option("-w", "--watch", "watching", is_flag=True, help="Go on measuring, until Ctrl-C.")
@_interval_option("1s", "How long to measure what share of a CPU is taken.")
@output_option()
def stats(
    *, vms: tuple[str, ...], file: Path | None, everywhere: bool, watching: bool, interval: float, output: Output
) -> None:
    """Show what VMs use of this host: CPU, memory, disk and network.

    The named ones, or all of the environment. CPU is in percent of one CPU of the host, the VMM's own work included. RESIDENT is
    the host's memory that the VMM has, ALLOCATED what its sparse disks take on the host; MEMORY and DISK are what the guest
    sees. Traffic is counted on networks of a file, and not in `network: user`.

    With -w a terminal shows a live view; elsewhere each measurement is printed, with `-o json` as one VM per line.
    """
    with wire.service() as service:
        look = _looker(service, vms, file, everywhere)
        meter = Meter()
        meter.shares(look())
        if watching and output is Output.TABLE and draws(sys.stdout):
            _draw(look, meter, interval)
        while True:
            time.sleep(interval)
            _print(look(), meter, output, lines=watching)
            if not watching:
                return


def _looker(
    service: Service, vms: Sequence[str], file: Path | None, everywhere: bool
) -> Callable[[], Sequence[VmUsage]]:
    """Measures the VMs that are meant."""
    if not vms:
        environment = None if everywhere else target.environment(file)
        return lambda: service.usage(environment)
    refs: set[VmRef] = {target.vm(service, name, file) for name in vms}
    environments = sorted({ref.environment for ref in refs})

    def named() -> Sequence[VmUsage]:
        found = [usage for environment in environments for usage in service.usage(environment)]
        return [u for u in found if VmRef(environment=u.environment, name=u.name) in refs]

    return named


def _print(found: Sequence[VmUsage], meter: Meter, output: Output, *, lines: bool) -> None:
    shares = meter.shares(found)
    items = [usage_json(usage, shares[usage.environment, usage.name]) for usage in found]
    match output:
        case Output.JSON if lines:
            for item in items:
                put(json.dumps(item, ensure_ascii=False))
        case Output.JSON | Output.YAML:
            put(("---\n" if lines else "") + document(listing(items), output))
        case Output.NAME:
            for usage in found:
                put(f"vm/{usage.environment}/{usage.name}")
        case _ if not found:
            say("no VMs")
        case _:
            put(usage_table(found, shares))


def _draw(look: Callable[[], Sequence[VmUsage]], meter: Meter, interval: float) -> None:
    from rich.live import Live  # noqa: PLC0415  # heavy, and only terminals see it
    from rich.text import Text  # noqa: PLC0415

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(interval)
            found = look()
            text = usage_table(found, meter.shares(found))
            live.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)


@click.command()
@file_option(text=_WHICH)
@all_option()
@_interval_option("2s", "How often it looks anew.")
def top(*, file: Path | None, everywhere: bool, interval: float) -> None:
    """Watch the VMs and what they use, on the whole screen.

    q or Ctrl-C ends it; c, m, d and n sort by CPU, memory, disk and name.
    """
    if not (draws(sys.stdout) and sys.stdin.isatty()):
        raise UsageError("banger top needs a terminal", hint="`banger vm stats -w -o json` is for programs")
    from reconciler.cli import topview  # noqa: PLC0415  # rich is heavy

    environment = None if everywhere else target.environment(file)
    with wire.service() as service:
        topview.run(lambda: service.vms(environment), lambda: service.usage(environment), interval)
