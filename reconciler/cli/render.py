"""Listings: one shape for JSON and YAML, an aligned table for people, bare references for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from reconciler.cli.options import Output
from reconciler.cli.terminal import harmless, put
from reconciler.model.nouns import API_VERSION
from reconciler.model.status import ObjectStatus, State

_COLOURS: Mapping[State, str] = {
    State.READY: "green",
    State.PRESENT: "green",
    State.STARTING: "yellow",
    State.STOPPED: "bright_black",
    State.DETACHED: "bright_black",
    State.FAILED: "red",
    State.MISSING: "red",
    State.UNKNOWN: "magenta",
}
_GAP = "  "


def document(value: Any, form: Output) -> str:
    """A value as JSON (indented) or YAML."""
    if form is Output.YAML:
        from reconciler.cli import yamlout  # noqa: PLC0415

        return yamlout.dump(value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def listing(items: Sequence[Any]) -> dict[str, Any]:
    """The one shape that every listing has as JSON."""
    return {"apiVersion": API_VERSION, "items": list(items)}


def objects(
    items: Sequence[ObjectStatus],
    form: Output,
    *,
    empty: str,
    kinds: bool = True,
    tabled: Callable[[Sequence[ObjectStatus]], str] | None = None,
) -> None:
    """Prints objects.

    Parameters
    ----------
    kinds: whether the table says what kind each is.
    tabled: makes another table of them.
    empty: what a table of nothing says instead, on stderr.
    """
    match form:
        case Output.JSON | Output.YAML:
            put(document(listing([item.to_json() for item in items]), form))
        case Output.NAME:
            for item in items:
                put(f"{item.kind}/{item.environment}/{item.name}")
        case Output.TABLE | Output.WIDE if not items:
            click.echo(empty, err=True)
        case Output.TABLE | Output.WIDE:
            put(tabled(items) if tabled is not None else object_table(items, kinds=kinds))


def object_table(items: Sequence[ObjectStatus], *, kinds: bool) -> str:
    """The objects as an aligned table."""
    header = [*(["KIND"] if kinds else []), "NAME", "ENVIRONMENT", "STATE", "ADDRESS", "MESSAGE"]
    rows = [
        [
            *([item.kind.value] if kinds else []),
            item.name,
            item.environment,
            state_of(item),
            item.address or "-",
            message_of(item),
        ]
        for item in items
    ]
    return table(header, rows)


def state_of(item: ObjectStatus) -> str:
    """Its state, in the colour of it."""
    return click.style(item.state.value, fg=_COLOURS[item.state])


def message_of(item: ObjectStatus) -> str:
    """What is to be known about it, in one line, whatever a failed command had to say."""
    return " ".join(harmless(item.message).split())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; the last one is not padded, empty ones go.

    Cells may be styled by `click.style`; their colours do not count as width.
    """
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    cells = [[header[i] for i in used], *([row[i] for i in used] for row in rows)]
    widths = [max(len(click.unstyle(row[i])) for row in cells) for i in range(len(used))]
    return "\n".join(
        _GAP.join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - len(click.unstyle(cell)))
