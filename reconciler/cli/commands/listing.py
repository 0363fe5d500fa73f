"""`banger ps`, `banger status` and `banger wait`: what there is, and when it is ready."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli import target, wire
from reconciler.cli.options import (
    Output,
    VmName,
    all_option,
    file_option,
    option,
    output_option,
    quiet_option,
    timeout_option,
)
from reconciler.cli.render import objects
from reconciler.cli.vmtables import vm_table
from reconciler.lib.errors import NotReadyError

if TYPE_CHECKING:
    from reconciler.api.service import WaitFor

_WHICH = "The file whose environment is meant. [default: ./banger.yaml; without it, all environments]"


@click.command()
@file_option(text=_WHICH)
@all_option()
@output_option(wide=True)
def ps(*, file: Path | None, everywhere: bool, output: Output) -> None:
    """List the VMs.

    Of the environment of -f FILE or ./banger.yaml; without either, of all environments. `-o wide` has more columns, and
    `banger vm show` everything about one VM.
    """
    environment = None if everywhere else target.environment(file)
    with wire.service() as service:
        vms = service.vms(environment)
    objects(
        vms,
        output,
        tabled=lambda found: vm_table(found, wide=output is Output.WIDE),
        empty=_nothing("VMs", environment),
    )


@click.command()
@file_option(text=_WHICH)
@all_option()
@option("-w", "--watch", "watching", is_flag=True, help="Go on as things change, until Ctrl-C.")
@output_option()
def status(*, file: Path | None, everywhere: bool, watching: bool, output: Output) -> None:
    """List every object, observed now.

    VMs, volumes, networks, images and kernels, of the environment of -f FILE or ./banger.yaml, or of all. While a
    controller runs, also the environments themselves, and what the controller does, holds back or tries again.

    With -w a terminal shows a live view; elsewhere each change is printed, with `-o json` as one object per line.
    """
    environment = None if everywhere else target.environment(file)
    with wire.service() as service:
        if watching:
            from reconciler.cli.watching import watch  # noqa: PLC0415  # a single look needs none of it

            watch(lambda: service.status(environment), output, kinds=True)
        found = service.status(environment)
    objects(found, output, empty=_nothing("objects", environment))


def _wait_for(word: str) -> WaitFor:
    from reconciler.api.service import WaitFor  # noqa: PLC0415  # ps does without the contract

    return WaitFor(word)


@click.command()
@click.argument("vms", metavar="[VM]...", nargs=-1, type=VmName())
@file_option(text=_WHICH)
@option(
    "--for",
    "condition",
    type=click.Choice(["ready", "stopped", "gone"]),
    default="ready",
    show_default=True,
    callback=lambda ctx, param, value: _wait_for(value),
    help="What to wait for.",
)
@timeout_option()
@quiet_option()
def wait(*, vms: tuple[str, ...], file: Path | None, condition: WaitFor, timeout: float | None, quiet: bool) -> None:
    """Wait until VMs are ready, stopped or gone.

    The named ones, or all that should run. The exit code is 4 if one of them is not so in time.
    """
    from reconciler.cli.reporter import reporting  # noqa: PLC0415  # ps needs no reporter

    deadline = None if timeout is None else time.monotonic() + timeout
    late: list[NotReadyError] = []
    with wire.service() as service, reporting(quiet=quiet) as reporter:
        names: dict[str, list[str]] = {}
        for reference in vms:
            found = target.vm(service, reference, file)
            names.setdefault(found.environment, []).append(found.name)
        if not vms:
            own = target.environment(file)
            names = {name: [] for name in ([own] if own else service.environments())}
        for environment, wanted in names.items():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                service.wait(environment, wanted, left, reporter, condition)
            except NotReadyError as error:
                late.append(error)
    if late:
        causes = "\n".join(error.cause for error in late)
        raise NotReadyError(causes, hint=late[0].hint, replay=late[0].replay)


def _nothing(what: str, environment: str | None) -> str:
    return f"no {what} in environment {environment}" if environment else f"no {what}"
