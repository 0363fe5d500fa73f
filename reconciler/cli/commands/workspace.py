"""`banger workspace`: a repository of the host and its copy in a VM, kept together by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from reconciler.api.service import Service, VmRef
from reconciler.cli import target, wire, workspaces
from reconciler.cli.converge import finish
from reconciler.cli.options import Output, VmName, file_option, option, output_option, quiet_option, vm_argument
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say
from reconciler.lib.errors import BangerError, ErrorClass, UsageError

# ruff: noqa: PLC0415  # each command brings what it needs


@click.group()
def workspace() -> None:
    """Keep a git repository of this host and its copy in a VM together.

    `workspace: {host: ., guest: /root/repo}` in the file ships it when the VM is ready for the first time; from then on
    nothing is sent or fetched but by these commands. Work that was done in the VM is never overwritten.
    """


@workspace.command()
@file_option()
@option("--dry-run", is_flag=True, help="Say what would be sent, and change nothing.")
@option("--force", is_flag=True, help="Replace work of the VM; it is kept there below refs/banger/replaced.")
@output_option()
@quiet_option()
@vm_argument()
def push(*, file: Path | None, dry_run: bool, force: bool, output: Output, quiet: bool, vm: str) -> None:
    """Send what has changed here to a VM.

    Commits, the branch, and tracked files as they are, staged and changed; files that git does not track only with
    `untracked: true`, and what it ignores never. Refused if the VM has work that is not here.
    """
    from reconciler.workspace.push import Pushed
    from reconciler.workspace.push import push as send

    with wire.service() as service:
        found = workspaces.bound(service, target.vm(service, vm, file), force=force)
    done = send(found.enter, found.request, workspaces.Spoken(found.ref, quiet=quiet), dry_run=dry_run)

    def as_json(done: Pushed) -> dict[str, Any]:
        return {
            "sent": done.sent and not dry_run,
            "differs": done.sent,
            "first": done.first,
            "head": None if done.head == "-" else done.head,
            "branch": None if done.branch == "-" else done.branch,
            "commits": done.commits,
            "changes": [{"path": path, "change": letter} for path, letter in sorted(done.changes.items())],
            "submodules": {path: as_json(part) for path, part in done.parts.items()},
            "notes": list(done.notes),
        }

    match output:
        case Output.JSON | Output.YAML:
            put(document({"kind": "push", **_named(found.ref), **as_json(done)}, output))
        case Output.NAME:
            for path in sorted(done.changes):
                put(harmless(path))
        case Output.TABLE:
            if dry_run and done.anything:
                for path, letter in sorted(done.changes.items()):
                    put(f"{letter} {harmless(path)}")
            for note in done.notes:
                say(note)
            if not quiet:
                say(workspaces.told(done, found.ref, dry_run=dry_run))


@workspace.command()
@file_option()
@option("--branch", metavar="NAME", help="The branch to bring it into. [default: banger/VM]")
@option("--patch", type=click.Path(path_type=Path), metavar="FILE", help="Write one patch instead; `-` is stdout.")
@output_option()
@quiet_option()
@vm_argument()
def pull(*, file: Path | None, branch: str | None, patch: Path | None, output: Output, quiet: bool, vm: str) -> None:
    """Bring what was done in a VM here, as a branch. Files here are not touched.

    The branch gets the VM's commits as they are, and one more for changes that were not committed there. Merge it, or
    look at it first: `git log -p ..banger/VM`.
    """
    from reconciler.workspace import pull as fetching

    if patch is not None and branch is not None:
        raise UsageError("a patch goes into a file, and a branch into the repository", hint="leave one of them out")
    with wire.service() as service:
        found = workspaces.bound(service, target.vm(service, vm, file))
    progress = workspaces.Spoken(found.ref, quiet=quiet)
    request = found.request
    if patch is not None:
        text = fetching.patch(found.enter, request.host, request.guest, progress)
        _write(patch, text)
        if not quiet:
            say(
                f"{text.count(b'diff --git ')} file(s) differ"
                if text
                else f"vm {found.ref.name} has nothing of its own"
            )
        return
    done = fetching.pull(found.enter, request.host, request.guest, vm=found.ref.name, branch=branch, progress=progress)
    match output:
        case Output.JSON | Output.YAML:
            fields = {
                "branch": done.branch,
                "commit": None if done.branch is None else done.commit,
                "commits": done.commits,
                "uncommitted": list(done.uncommitted),
                "changed": done.changed,
            }
            put(document({"kind": "pull", **_named(found.ref), **fields}, output))
        case Output.NAME:
            if done.branch is not None:
                put(done.branch)
        case Output.TABLE if quiet:
            pass
        case Output.TABLE if done.branch is None:
            say(f"vm {found.ref.name} has nothing of its own")
        case Output.TABLE:
            more = f", and {len(done.uncommitted)} file(s) that were not committed" if done.uncommitted else ""
            again = "" if done.changed else " (it was there already)"
            say(f"branch {done.branch} is {done.commit[:12]}: {done.commits} commit(s){more}{again}")


@workspace.command()
@file_option()
@option("--stat", is_flag=True, help="Only how much of each file differs.")
@vm_argument()
def diff(*, file: Path | None, stat: bool, vm: str) -> None:
    """Show how the files of a VM differ from those here, as a patch for these here."""
    from reconciler.workspace.pull import brought, difference
    from reconciler.workspace.snapshot import taken

    with wire.service() as service:
        found = workspaces.bound(service, target.vm(service, vm, file))
    request = found.request
    with brought(found.enter, request.host, request.guest) as guest, taken(request.host, untracked=True) as here:
        # Both lie in stores of their own: one has to know of the other.
        with (guest.store / "info" / "alternates").open("ab") as alternates:
            alternates.write(bytes(here.store) + b"\n")
        text = difference(guest, here.files, guest.files, *(["--stat"] if stat else []))
    if sys.stdout.isatty():
        put(harmless(text.decode("utf-8", "replace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)


@workspace.command()
@file_option()
@output_option()
@click.argument("vms", metavar="[VM]...", nargs=-1, type=VmName())
def status(*, file: Path | None, output: Output, vms: tuple[str, ...]) -> None:
    """Show how both sides stand: of the named VMs, or of all that have a workspace."""
    from reconciler.workspace.standing import Report, look

    rows: list[tuple[VmRef, Report | BangerError]] = []
    with wire.service() as service:
        refs = [target.vm(service, name, file) for name in vms] or _with_workspace(service, file)
        for ref in refs:
            try:
                found = workspaces.bound(service, ref)
                rows.append((ref, look(found.enter, found.request)))
            except BangerError as problem:
                if problem.error_class is ErrorClass.CANCELLED or isinstance(problem, UsageError):
                    raise
                rows.append((ref, problem))
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([_status_json(ref, report) for ref, report in rows]), output))
        case Output.NAME:
            for ref, _ in rows:
                put(f"vm/{ref}")
        case Output.TABLE if not rows:
            say("no vm has a workspace")
        case Output.TABLE:
            put(table(["VM", "STATE", "HOST", "GUEST", "MESSAGE"], [_row(ref, report) for ref, report in rows]))
    finish(1 if any(isinstance(report, BangerError) for _, report in rows) else 0)


@workspace.command()
@file_option()
@output_option()
@click.argument("where", metavar="[PATH|VM]", required=False)
def tools(*, file: Path | None, output: Output, where: str | None) -> None:
    """Show which tools a repository asks for, in which versions, and where it says so.

    PATH is a folder (default: this one); a VM means the repository of its workspace. Nothing is run and nothing is
    installed: the files at the top of the folder are read, mise's and asdf's first, then files such as .nvmrc, then
    manifests, whose ranges are taken at their lower end.
    """
    from reconciler.workspace.toolchain import detect

    found = detect(_folder(where, file))
    match output:
        case Output.JSON | Output.YAML:
            put(document(listing([wish.to_json() for wish in found.wishes]), output))
        case Output.NAME:
            for wish in found.wishes:
                put(f"{wish.tool}@{wish.version}")
        case Output.TABLE if not found.wishes:
            say("no file here asks for a tool")
        case Output.TABLE:
            rows = [[wish.tool, wish.version, harmless(wish.reason)] for wish in found.wishes]
            put(table(["TOOL", "VERSION", "WHY"], rows))
    for name, why in found.unread:
        say(f"{name} was passed over: {harmless(why)}")


def _folder(where: str | None, file: Path | None) -> Path:
    if where is None or Path(where).is_dir():
        return Path(where or ".")
    with wire.service() as service:
        ref = target.vm(service, where, file)
        request = workspaces.request_of(workspaces.of(service, ref))
    if request is None:
        raise UsageError(f"vm {ref} has no workspace", hint="name a folder")
    return request.host


def _with_workspace(service: Service, file: Path | None) -> list[VmRef]:
    found = service.vms(target.environment(file))
    return [VmRef(environment=vm.environment, name=vm.name) for vm in found if vm.details.get("workspace")]


def _row(ref: VmRef, report: Any) -> list[str]:
    if isinstance(report, BangerError):
        return [ref.name, "unknown", "-", "-", " ".join(harmless(report.cause).split())]
    guest = str(report.guest) if report.guest else "-"
    return [ref.name, report.standing.value, *(harmless(t) for t in (str(report.host), guest, report.message))]


def _status_json(ref: VmRef, report: Any) -> dict[str, Any]:
    fields = {"state": "unknown", "message": report.cause} if isinstance(report, BangerError) else report.to_json()
    return {"kind": "workspace", **_named(ref), **fields}


def _named(ref: VmRef) -> dict[str, str]:
    return {"environment": ref.environment, "vm": ref.name}


def _write(path: Path, data: bytes) -> None:
    if str(path) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    try:
        path.write_bytes(data)
    except OSError as problem:
        raise BangerError(f"cannot write {path}: {problem.strerror}") from problem
