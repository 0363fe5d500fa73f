"""Writes the manual page banger(1) from the commands' own help texts: `python -m reconciler.cli.manpage`.

A test keeps it current. Its macros: groff_man(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import click

from reconciler.cli.main import cli
from reconciler.cli.reference import EXIT_CODES, PAGE, PASSED_ON, TOPICS

MANUAL = PAGE.with_name("banger.1")
_VERBATIM = "\b"  # click's mark for a paragraph that is not wrapped
_SEE_ALSO = "qemu-system-x86_64(1), ssh(1), mmdebstrap(1), skopeo(1), nft(8), systemd.unit(5)"


def page() -> str:
    """The whole page, in roff."""
    context = _context(cli, "banger", None)
    first, _, rest = (cli.help or "").partition("\n\n")
    lines = [
        '.TH BANGER 1 "" "banger" "User Commands"',
        ".SH NAME",
        f"banger \\- {_text(_one_line(first).rstrip('.'))}",
    ]
    lines += [".SH SYNOPSIS", *_usage(cli, context), ".SH DESCRIPTION", *_paragraphs(rest or first)]
    lines += [".SH OPTIONS", *_options(cli, context), ".SH COMMANDS"]
    for command, inner in _commands(cli, context):
        lines += [f".SS {_quoted(inner.command_path)}", *_usage(command, inner)]
        lines += [*_paragraphs(command.help or ""), *_options(command, inner)]
    for name, text in TOPICS.items():
        lines += [f".SH {name.upper()}", *_paragraphs(text)]
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES.items():
        lines += [".TP", f".B {_text(code)}", _text(meaning)]
    lines += [".PP", _text(PASSED_ON), ".SH SEE ALSO", _text(_SEE_ALSO)]
    return "\n".join(lines) + "\n"


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _commands(group: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        inner = _context(found, name, context)
        yield found, inner
        yield from _commands(found, inner)


def _usage(command: click.Command, context: click.Context) -> list[str]:
    return [f".B {_text(context.command_path)}", _text(" ".join(command.collect_usage_pieces(context))), ".PP"]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        told = context.parent is not None and parameter.name == "help"  # once is enough
        if record is not None and record[1] and not told:
            yield from (".TP", f".B {_text(record[0])}", _text(_one_line(record[1])))


def _paragraphs(text: str) -> Iterator[str]:
    """What an empty line sets apart; click's mark keeps the lines of one as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        first, _, rest = paragraph.lstrip("\n").partition("\n")
        if first.strip() == _VERBATIM:
            yield from (".PP", ".nf", *map(_text, rest.splitlines()), ".fi")
        elif words := _one_line(paragraph):
            yield from (".PP", _text(words))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Nothing in it is roff any more. Code is bold, as manual pages have it."""
    parts = text.replace("\\", "\\e").replace("-", "\\-").split("`")
    marked = "".join(f"\\fB{part}\\fR" if number % 2 else part for number, part in enumerate(parts))
    return f"\\&{marked}" if marked[:1] in (".", "'") else marked


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', "\\(dq") + '"'


if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith("BANGER_")]:
        del os.environ[variable]
    MANUAL.write_text(page(), encoding="utf-8")
