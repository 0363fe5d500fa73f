"""What the commands about workspaces share: which repository belongs to a VM, and how its guest is entered.

The work is done in this process, with the rights of whoever calls it: the repository is that user's.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.api.service import Service, VmRef, WayIn
from reconciler.cli.terminal import say
from reconciler.lib.errors import BangerError, ErrorClass, UsageError
from reconciler.model.status import ObjectStatus
from reconciler.workspace import push, standing
from reconciler.workspace.push import Pushed, Request

Enter = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Bound:
    """A VM with its workspace."""

    ref: VmRef
    request: Request
    enter: Enter


class Spoken:
    """Progress in lines on stderr; each step of it once."""

    def __init__(self, ref: VmRef, *, quiet: bool) -> None:
        self._ref = ref
        self._quiet = quiet
        self._last = ""

    def update(self, fraction: float | None, message: str) -> None:
        if message != self._last and not self._quiet:
            say(f"vm {self._ref.name}: {message}")
        self._last = message


def of(service: Service, ref: VmRef) -> ObjectStatus:
    """The VM's status, whatever it is."""
    return next(found for found in service.vms(ref.environment) if found.name == ref.name)


def bound(service: Service, ref: VmRef, *, force: bool = False) -> Bound:
    """The workspace of a VM that runs. UsageError if its file gives it none."""
    request = request_of(of(service, ref), force=force)
    if request is None:
        raise UsageError(
            f"vm {ref} has no workspace", hint=f"write `workspace: {{guest: /root/repo}}` at vms.{ref.name}, and apply"
        )
    # The command is put behind it here: through a controller, the script would travel with each request.
    argv = service.ssh_argv(ref, None, False)

    def enter(words: Sequence[str]) -> list[str]:
        return [*argv, shlex.join(words)]

    return Bound(ref, request, enter)


def before(way: WayIn, entry: Sequence[str], ref: VmRef, *, sync: bool | None, verbose: bool) -> None:
    """What is done about a VM's copy before a command runs there.

    Parameters
    ----------
    entry: as `joining.join` gives it: the program's path, and the arguments that run a command as the copy's owner.
    sync: True sends what the guest lacks, and says so; None only says that it lacks something.
    """

    given = way.workspace
    assert given is not None
    request = Request(host=Path(given.host), guest=given.guest, vm=ref.name, untracked=given.untracked)

    program, _, *arguments = entry  # the second is what the program is to be called

    def enter(words: Sequence[str]) -> list[str]:
        return [program, *arguments, shlex.join(words)]

    if sync:
        done = push.push(enter, request, Spoken(ref, quiet=not verbose))
        if done.anything or verbose:
            say(told(done, ref, dry_run=False))
        return
    try:
        if standing.behind(enter, request):
            say(f"vm {ref.name} lacks changes of {request.host}: --sync sends them first, --no-sync does not look")
    except BangerError as problem:
        if problem.error_class is ErrorClass.CANCELLED:
            raise
        if verbose:
            say(f"vm {ref.name}: whether it lacks changes of {request.host} is unknown: {problem.cause}")


def request_of(status: ObjectStatus, *, force: bool = False) -> Request | None:
    """What is to be shipped to a VM; None if nothing is."""
    given = status.details.get("workspace")
    if given is None:
        return None
    return Request(
        host=Path(given["host"]), guest=given["guest"], vm=status.name, untracked=given["untracked"], force=force
    )


def told(done: Pushed, ref: VmRef, *, dry_run: bool) -> str:
    """What a push did, in one line."""
    where = f"vm {ref.name}"
    if not done.anything:
        return f"{where} has everything already"
    verb = "would get" if dry_run else "got"
    if done.first:
        what = f"the whole of {done.branch if done.branch != '-' else done.head[:12]}"
    else:
        what = f"{done.commits} commit(s)" if done.commits is not None else "another history"
    parts = sum(part.anything for part in done.parts.values())
    more = [f"{len(done.changes)} changed file(s)"] if done.changes else []
    more += [f"{parts} submodule(s)"] if parts else []
    return f"{where} {verb} {' and '.join([what, *more])}"
