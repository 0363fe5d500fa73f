"""`banger events`: what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from reconciler.cli import target, wire
from reconciler.cli.options import Output, all_option, file_option, option, output_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say
from reconciler.lib.units import rfc3339
from reconciler.model.events import Event

_HEADER = ["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"]
# Following along, no row is known before it comes: widths that fit what events mostly are.
_WIDTHS = (20, 8, 14, 24)


@click.command()
@file_option(short=False, text="The file whose environment is meant. [default: ./banger.yaml; else all environments]")
@all_option()
@option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@option("--after", type=click.IntRange(min=0), metavar="ID", help="Only events after this one. [default: the last 50]")
@output_option()
def events(*, file: Path | None, everywhere: bool, follow: bool, after: int | None, output: Output) -> None:
    """List what happened.

    Steps that were done or failed, guests that became ready, files that were taken over or refused, decisions.

    With -f, `-o json` prints one event per line.
    """
    environment = None if everywhere else target.environment(file)
    with wire.service() as service:
        found = service.events(environment, after, follow)
        if follow:
            _follow(found, output)
        else:
            _list(list(found), output)


def _list(found: list[Event], output: Output) -> None:
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([event.to_json() for event in found]), output))
        case Output.NAME:
            for event in found:
                put(str(event.id))
        case Output.TABLE if not found:
            say("nothing has happened yet")
        case Output.TABLE:
            put(table(_HEADER, [_row(event) for event in found]))


def _follow(found: Iterator[Event], output: Output) -> None:
    if output is Output.TABLE:
        _line(_HEADER)
    for event in found:
        match output:
            case Output.TABLE:
                _line(_row(event))
            case Output.NAME:
                put(str(event.id))
            case Output.YAML:
                put("---\n" + document(event.to_json(), output))
            case Output.JSON:
                put(json.dumps(event.to_json(), ensure_ascii=False))


def _line(row: list[str]) -> None:
    cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, _WIDTHS, strict=False)]
    put("  ".join([*cells, *row[len(_WIDTHS) :]]).rstrip())


def _row(event: Event) -> list[str]:
    kind = click.style("Warning", fg="yellow") if event.warning else "Normal"
    where = f"{event.environment}/{event.object}" if event.environment else event.object
    return [rfc3339(event.at), kind, event.reason, where, " ".join(harmless(event.message).split())]
