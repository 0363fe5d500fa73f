"""`banger apply`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from reconciler.api.service import ApplyOptions, Source
from reconciler.cli import target, wire
from reconciler.cli.options import (
    Output,
    allow_recreate_option,
    file_option,
    output_option,
    parallel_option,
    quiet_option,
    set_option,
    wait_options,
    yes_option,
)
from reconciler.cli.render import objects
from reconciler.cli.terminal import invocation, say
from reconciler.lib.errors import BangerError, UsageError

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    desired: DesiredState
    source: Source
    allow_recreate: bool
    expect: str | None = None


@click.command()
@click.argument("planfile_path", metavar="[PLANFILE]", required=False, type=click.Path(path_type=Path))
@file_option()
@set_option()
@allow_recreate_option()
@yes_option()
@wait_options("the VMs are ready")
@parallel_option()
@output_option()
@quiet_option()
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    planfile_path: Path | None,
    file: Path | None,
    settings: tuple[tuple[str, str], ...],
    allow_recreate: bool,
    yes: bool,
    wait: bool,
    timeout: float | None,
    parallel: int,
    output: Output,
    quiet: bool,
) -> None:
    """Make the host be what the file says.

    With PLANFILE (from `banger plan --out`): only exactly that plan, refused once file or host has moved.
    On a terminal it asks before it stops, recreates or trashes something; elsewhere the command is the consent.
    """
    if planfile_path is not None:
        request = _saved(ctx, planfile_path)
    else:
        loaded = target.load(file, dict(settings))
        source = Source(path=loaded.path, digest=loaded.digest)
        request = _Request(desired=loaded.desired, source=source, allow_recreate=allow_recreate)
    # ruff: noqa: PLC0415  # after the file: these bring every action, which a bad one has no use for
    from reconciler.cli.converge import approval, conclude, finish
    from reconciler.cli.reporter import reporting

    options = ApplyOptions(
        allow_recreate=request.allow_recreate, expect=request.expect, wait=wait, timeout=timeout, parallel=parallel
    )
    with wire.service() as service:
        with reporting(quiet=quiet) as reporter:
            approve = approval(yes=yes, quiet=quiet)
            result = service.apply(request.desired, request.source, options, reporter, approve)
        code = conclude(result)
        if result.approved and not (quiet and output is Output.TABLE):
            vms = service.vms(request.desired.environment)
            if result.plan.empty and not quiet:
                say(f"environment {request.desired.environment}: nothing to do")
            objects(vms, output, kinds=False, empty="no VMs")
            running = next((vm for vm in vms if vm.ready), None)
            if running is not None and output is Output.TABLE:
                say(f"\nget in with: {invocation()} ssh {running.name}")
    finish(code)


def _saved(ctx: click.Context, path: Path) -> _Request:
    from reconciler.cli import planfile

    for parameter in ("file", "settings", "allow_recreate"):
        if ctx.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            raise UsageError(
                "a saved plan has its file and its options already",
                hint="leave out -f, --set and --allow-recreate, or apply without a plan file",
            )
    saved = planfile.load(path)
    loaded = target.load(saved.source, saved.settings)
    if loaded.digest != saved.digest:
        raise BangerError(
            f"{saved.source} has changed since the plan was saved; nothing was done",
            hint=f"make a new plan: banger plan -f {saved.source} --out {path}",
        )
    return _Request(
        desired=loaded.desired,
        source=Source(path=loaded.path, digest=loaded.digest),
        allow_recreate=saved.allow_recreate,
        expect=saved.fingerprint,
    )
