"""`banger version`."""

from __future__ import annotations

import platform

import click

from reconciler import __version__
from reconciler.cli.options import Output, output_option
from reconciler.cli.render import document
from reconciler.cli.terminal import put
from reconciler.doctor.qemu import qemu_version


@click.command()
@output_option()
def version(*, output: Output) -> None:
    """Print versions."""
    qemu = qemu_version()
    match output:
        case Output.NAME:
            put(f"banger/{__version__}")
        case Output.TABLE:
            put(f"banger {__version__} (Python {platform.python_version()}, QEMU {qemu or 'not installed'})")
        case _:
            found = {"banger": __version__, "python": platform.python_version(), "qemu": qemu}
            put(document({"apiVersion": "banger/v1", "kind": "Version", **found}, output))
