"""`banger run`: a VM for one command, or for one shell."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from reconciler.api.service import ApplyOptions, Source, VmRef
from reconciler.cli import oneoff, wire
from reconciler.cli.converge import conclude, finish
from reconciler.cli.options import Duration, file_option, option, quiet_option, set_option
from reconciler.cli.reporter import reporting
from reconciler.cli.terminal import invocation, say
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.run import interactive, reset_cancel
from reconciler.lib.run import run as run_program
from reconciler.lib.units import format_duration
from reconciler.model.vm import NO_NETWORK

_READY_SECONDS = 600.0
_SYNC_SECONDS = 20.0
_CANCEL_SECONDS = 2.0


class _Command(click.Command):
    """What follows `--` is the guest's, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, dashes, rest = _split(args)
        ctx.meta["banger.command"] = rest if dashes else None
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def _split(args: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in args:
        return args, False, []
    place = args.index("--")
    return args[:place], True, args[place + 1 :]


@click.command("run", cls=_Command)
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(path_type=Path))
@file_option(text="The file whose images there are. [default: ./banger.yaml, else Debian]")
@set_option()
@option("--image", metavar="NAME", help="One of the file's images. [default: its first]")
@option("--name", metavar="NAME", help="The name of the VM. [default: one that is made up]")
@option("--cpus", type=int, metavar="N", help="Virtual processors.")
@option("--memory", metavar="SIZE", help="Memory, such as 2GiB.")
@option("--disk", metavar="SIZE", help="What can be written to its root file system.")
@option("--network", metavar="NAME", help="`user` or `none`. [default: user]")
@option(
    "-p", "--publish", multiple=True, metavar="HOST:GUEST", help="A port that this host answers on; may be repeated."
)
@option("--volume", multiple=True, metavar="NAME:SIZE:MOUNT", help="A disk; may be repeated.")
@option("--untracked", is_flag=True, help="Also ship files that git does not track, and does not ignore.")
@option("--ttl", type=Duration(), metavar="DURATION", help="How long a controller lets it run.")
@option("--keep", is_flag=True, help="Leave the VM running at the end.")
@option("--rm", "for_good", is_flag=True, help="Delete the VM for good at the end: nothing of it goes to the trash.")
@option("--timeout", type=Duration(), metavar="DURATION", help="How long to wait until it is ready. [default: 10m]")
@quiet_option()
def run(*, path: Path | None, file: Path | None, name: str | None, quiet: bool, **options: Any) -> None:
    """Boot a VM for one command, or for a shell, and trash it afterwards.

    PATH is shipped to it first: a git repository as `banger workspace` does, any other folder as it is; the command
    runs there. Its exit code becomes banger's. The VM is in no file, and no file removes it.

    \b
      banger run                               a shell in a fresh Debian
      banger run . -- make test                the tests of this repository
      banger run --image base --keep -p 8080:80
    """
    from reconciler.cli import oneoffspec  # noqa: PLC0415  # brings the parser

    command: list[str] | None = click.get_current_context().meta["banger.command"]
    if command == []:
        raise click.UsageError("There is no command behind '--'.")
    if options["keep"] and options["for_good"]:
        raise UsageError("--keep leaves the VM, and --rm deletes it", hint="leave one of them out")
    if options["network"] == NO_NETWORK:
        _check_without_network(path, command)
    load = _Load.of(path)
    with wire.service() as service:
        chosen = oneoff.new_name(service, name)
        wanted = oneoffspec.Wanted(name=chosen, image=options["image"], fields=_fields(load, options))
        desired = oneoffspec.desired_of(wanted, file, dict(options["settings"]))
    ref = VmRef(environment=desired.environment, name=chosen)
    code, kept = 1, False
    with oneoff.noted(desired.environment) as note:
        try:
            code, reached = _inside(ref, desired, note, load, command, quiet=quiet)
            kept = options["keep"] and reached
        finally:
            if kept:
                oneoff.forget(note)
            else:
                _away(ref, note, for_good=options["for_good"], quiet=quiet)
    if kept and not quiet:
        say(f"vm {chosen} goes on: {invocation()} ssh {ref}; {invocation()} delete {ref.environment} removes it")
    finish(code)


def _check_without_network(path: Path | None, command: list[str] | None) -> None:
    """The agent runs commands; what only ssh can is refused before anything boots."""
    if path is not None:
        raise UsageError(f"{path} travels over ssh, which needs a network", hint="leave `--network none` or PATH out")
    if command is None:
        raise UsageError("a shell needs ssh, and so a network", hint="name a command: banger run --network none -- ls")


class _Load:
    """What is shipped: a repository by the service, a plain folder by us; `inner` is where the command runs."""

    def __init__(self, repository: Path | None, folder: Path | None, guest: str | None, inner: str | None) -> None:
        self.repository, self.folder, self.guest, self.inner = repository, folder, guest, inner

    @classmethod
    def of(cls, path: Path | None) -> _Load:
        from reconciler.cli.oneoffspec import guest_path  # noqa: PLC0415
        from reconciler.workspace.git import toplevel  # noqa: PLC0415

        if path is None:
            return cls(None, None, None, None)
        if not path.is_dir():
            raise UsageError(
                f"{path} is not a folder", hint="name a folder, and put the command behind `--`: banger run . -- make"
            )
        top = toplevel(path)
        if top is None:
            guest = guest_path(path.resolve())
            return cls(None, path.resolve(), guest, guest)
        guest = guest_path(top)
        below = path.resolve().relative_to(top.resolve())
        return cls(top, None, guest, str(Path(guest) / below))


def _fields(load: _Load, options: dict[str, Any]) -> dict[str, Any]:
    from reconciler.cli.oneoffspec import volumes  # noqa: PLC0415

    plain = {key: options[key] for key in ("cpus", "memory", "disk", "network") if options[key] is not None}
    timeout = options["timeout"] if options["timeout"] is not None else _READY_SECONDS
    found = {**plain, "ready": {"timeout": format_duration(timeout)}}
    if options["publish"]:
        found["ports"] = list(options["publish"])
    if options["volume"]:
        found["volumes"] = volumes(options["volume"])
    if options["ttl"] is not None:
        found["ttl"] = format_duration(options["ttl"])
    if load.repository is not None:
        found["workspace"] = {"host": str(load.repository), "guest": load.guest, "untracked": options["untracked"]}
    return found


def _inside(
    ref: VmRef, desired: Any, note: Path, load: _Load, command: list[str] | None, *, quiet: bool
) -> tuple[int, bool]:
    """Makes the VM and does what it is for. The exit code, and whether it came to that."""
    source = Source(path=note.absolute(), digest=hashlib.sha256(note.read_bytes()).hexdigest())
    with wire.service() as service:
        with reporting(quiet=quiet) as reporter:
            result = service.apply(desired, source, ApplyOptions(), reporter, lambda plan: True)
        if code := conclude(result):
            return code, False
        if command is not None and desired.vms[ref.name].network == NO_NETWORK:
            return wire.run_by_agent(service.way_in(ref, None), command, cwd=None, env={}, timeout=None), True
        if load.folder is not None:
            _carry(service.ssh_argv(ref, None, False), load.folder, str(load.guest))
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        words = _words(load.inner, command)
        entering = service.ssh_argv(ref, words, terminal)
    sys.stdout.flush()
    return interactive(entering), True


def _words(inner: str | None, command: list[str] | None) -> list[str] | None:
    """What runs in the guest, in the folder that was shipped."""
    if inner is None:
        return command
    if command is None:
        return ["sh", "-c", 'cd "$1" && exec "${SHELL:-/bin/sh}" -l', "sh", inner]
    return ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", inner, *command]


def _carry(argv: Sequence[str], folder: Path, guest: str) -> None:
    """A plain folder, as tar has it."""
    from reconciler.lib.converse import converse  # noqa: PLC0415

    script = 'mkdir -p "$1" && tar -x -C "$1" -f - && echo done'
    with converse([*argv, shlex.join(["sh", "-c", script, "sh", guest])]) as there:
        there.pour(["tar", "-C", folder, "-c", "-f", "-", "."], input=b"")
        if there.line() != "done":
            raise BangerError(f"{folder} did not arrive in the guest")


def _away(ref: VmRef, note: Path, *, for_good: bool, quiet: bool) -> None:
    """Whatever happened before, and also after Ctrl-C: its children have ended by then, and ours may begin."""
    problem = sys.exc_info()[1]
    interrupted = problem is not None
    if isinstance(problem, KeyboardInterrupt):
        # A thread says so to everybody (cli.interrupts): it must have done that before it is taken back.
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not cancel.cancelled() and time.monotonic() < deadline:
            time.sleep(0.02)
    reset_cancel()
    with wire.service(sweep=False) as service:
        if not interrupted:
            try:
                # What was written is to be in the trash too.
                run_program(service.ssh_argv(ref, ["sync"], False), timeout=_SYNC_SECONDS, check=False)
            except BangerError:
                pass
        had = ref.environment in service.environments()
        # One of that name may have been trashed before: it is not this run's.
        older = {entry.entry for entry in service.trash()}
        oneoff.remove(service, ref.environment)
        if for_good:
            for entry in service.trash():
                if entry.environment == ref.environment and entry.entry not in older:
                    service.discard(entry.entry)
    oneoff.forget(note)
    if had and not quiet and not for_good:
        say(f"vm {ref.name} is in the trash: {invocation()} vm restore {ref} brings it back")
