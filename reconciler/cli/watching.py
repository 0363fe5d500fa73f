"""`--watch`: a listing that is drawn anew on a terminal; elsewhere, what has changed since the last look."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

from reconciler.cli.options import Output
from reconciler.cli.render import document, object_table
from reconciler.cli.terminal import draws, put
from reconciler.model.status import ObjectStatus

_SECONDS = 1.0

Look = Callable[[], Sequence[ObjectStatus]]


def watch(look: Look, output: Output, *, kinds: bool, pause: Callable[[float], None] = time.sleep) -> None:
    """Until Ctrl-C. JSON is one changed object per line, YAML one document each."""
    if output is Output.TABLE and draws(sys.stdout):
        _draw(look, kinds=kinds, pause=pause)
    else:
        _changes(look, output, kinds=kinds, pause=pause)


def _draw(look: Look, *, kinds: bool, pause: Callable[[float], None]) -> None:
    from rich.live import Live  # noqa: PLC0415  # heavy, and only terminals see it
    from rich.text import Text  # noqa: PLC0415

    def screen() -> Text:
        return Text.from_ansi(object_table(look(), kinds=kinds), no_wrap=True, overflow="ellipsis")

    with Live(screen(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            pause(_SECONDS)
            live.update(screen(), refresh=True)


def _changes(look: Look, output: Output, *, kinds: bool, pause: Callable[[float], None]) -> None:
    known: dict[tuple[str, str, str], str] = {}
    while True:
        current = {(item.environment, item.kind.value, item.name): item for item in look()}
        words = {key: json.dumps(item.to_json(), ensure_ascii=False) for key, item in current.items()}
        changed = [current[key] for key, text in words.items() if known.get(key) != text]
        if changed:
            match output:
                case Output.TABLE:
                    put(object_table(changed, kinds=kinds))
                case Output.JSON:
                    for item in changed:
                        put(json.dumps(item.to_json(), ensure_ascii=False))
                case Output.YAML:
                    for item in changed:
                        put("---\n" + document(item.to_json(), output))
                case Output.NAME:
                    for item in changed:
                        put(f"{item.kind}/{item.environment}/{item.name}")
        for key in known.keys() - words.keys():
            if output is Output.TABLE:
                put(f"{key[1]} {key[2]} is gone")
        known = words
        pause(_SECONDS)
