"""`banger cache …`: what piles up, what the file's policy makes of it, and pruning by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from reconciler.api.service import ApplyOptions, CacheView
from reconciler.cli import target, wire
from reconciler.cli.options import Output, file_option, option, output_option, quiet_option, set_option, yes_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say
from reconciler.lib.units import human_size
from reconciler.model.nouns import Noun
from reconciler.model.retention import EntryKind, Verdict
from reconciler.model.status import State

_NO_POLICY = "the file has no section `cache`, so nothing is ever pruned by itself"
_SHORT = 19
_KINDS = tuple(EntryKind)


@click.group()
def cache() -> None:
    """Show what the cache and the trash hold, and prune them by the file's policy.

    The policy is the section `cache` of the file. `banger apply` and the controller keep to it; without one, nothing is
    ever pruned by itself. What a VM, an environment, a trash entry, a pin or a lock file needs is never pruned.
    """


@cache.command()
@output_option()
def df(*, output: Output) -> None:
    """Show how much of each kind there is, and how much of it is needed.

    Sizes are what is allocated on disk; a file with several names counts once.
    """
    with wire.service() as service:
        view = service.cache(None)
    usage = [_usage(kind, view.verdicts) for kind in _KINDS]
    if output is Output.TABLE:
        rows = [
            [item["name"], str(item["entries"]), human_size(item["size"]), human_size(item["needed"])] for item in usage
        ]
        put(table(("KIND", "ENTRIES", "SIZE", "NEEDED"), rows))
        say(
            f"{human_size(view.used)} in {view.folder}; {human_size(view.free)} of {human_size(view.total)} free there",
            dim=True,
        )
    elif output is Output.NAME:
        for item in usage:
            put(f"{Noun.CACHE}/{item['name']}")
    else:
        put(document(listing(usage), output))


@cache.command()
@file_option()
@set_option()
@option("-a", "--all", "everything", is_flag=True, help="Also what stays, and why.")
@output_option()
def plan(*, file: Path | None, settings: tuple[tuple[str, str], ...], everything: bool, output: Output) -> None:
    """Show what the policy would prune now: each entry with the rule, the reason, and the bytes that come free.

    Changes nothing. RULE is the place in the file, or what stands above every rule.
    """
    desired = target.load(file, dict(settings)).desired
    with wire.service() as service:
        view = service.cache(desired)
    chosen = [verdict for verdict in view.verdicts if everything or verdict.evict]
    if output is Output.NAME:
        for verdict in chosen:
            put(verdict.entry.key)
    elif output is not Output.TABLE:
        put(document({**listing([_item(verdict) for verdict in chosen]), **_summary(view)}, output))
    else:
        if chosen:
            put(table(("", "KIND", "ENTRY", "SIZE", "FREES", "RULE", "REASON"), [_row(v, everything) for v in chosen]))
        say(_told(view))


@cache.command()
@file_option()
@set_option()
@option("-n", "--dry-run", is_flag=True, help="Only show what would go.")
@yes_option()
@quiet_option()
@click.pass_context
def prune(
    context: click.Context,
    *,
    file: Path | None,
    settings: tuple[tuple[str, str], ...],
    dry_run: bool,
    yes: bool,
    quiet: bool,
) -> None:
    """Evict exactly what `banger cache plan` shows, and nothing else.

    What became needed or was used in between stays. On a terminal you are asked first if some of it is trash: that is
    your data.
    """
    if dry_run:
        context.invoke(plan, file=file, settings=settings, everything=False, output=Output.TABLE)
        return
    from reconciler.cli.converge import approval, conclude, finish  # noqa: PLC0415  # showing needs none of it
    from reconciler.cli.reporter import reporting  # noqa: PLC0415

    desired = target.load(file, dict(settings)).desired
    if desired.cache is None:
        if not quiet:
            say(_NO_POLICY)
        return
    with wire.service() as service:
        with reporting(quiet=quiet) as reporter:
            result = service.prune_cache(desired, ApplyOptions(), reporter, approval(yes=yes, quiet=quiet))
        code = conclude(result)
    if not result.plan.steps and not quiet:
        say("nothing to prune")
    finish(code)


def _usage(kind: EntryKind, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One kind, in the shape of every listing."""
    mine = [verdict for verdict in verdicts if verdict.entry.kind is kind]
    return {
        "kind": Noun.CACHE.value,
        "name": kind.value,
        "environment": None,
        "ready": True,
        "state": State.PRESENT.value,
        "address": None,
        "conditions": [],
        "entries": len(mine),
        "size": _bytes(mine),
        "needed": _bytes([verdict for verdict in mine if verdict.rule == "needed"]),
    }


def _bytes(verdicts: Sequence[Verdict]) -> int:
    """A file of several names counts once."""
    shared = {file.inode: file.size for verdict in verdicts for file in verdict.entry.shared}
    return sum(verdict.entry.size for verdict in verdicts) + sum(shared.values())


def _item(verdict: Verdict) -> dict[str, Any]:
    entry = verdict.entry
    return {
        "kind": entry.kind.value,
        "name": entry.name,
        "environment": entry.environment,
        "ready": True,
        "state": State.PRESENT.value,
        "address": None,
        "conditions": [],
        "evict": verdict.evict,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "size": entry.total,
        "frees": verdict.frees,
        "madeAt": entry.made_at,
        "usedAt": entry.used_at,
    }


def _row(verdict: Verdict, everything: bool) -> list[str]:
    entry = verdict.entry
    return [
        ("-" if verdict.evict else "=") if everything else "",
        entry.kind.value,
        entry.name if entry.kind is not EntryKind.BLOB else f"{entry.name[:_SHORT]}…",
        human_size(entry.total),
        human_size(verdict.frees) if verdict.evict else "",
        verdict.rule,
        harmless(verdict.reason),
    ]


def _summary(view: CacheView) -> dict[str, Any]:
    return {
        "used": view.used,
        "free": view.free,
        "limit": view.limit,
        "pressed": view.pressed,
        "policy": view.policy,
        "frees": sum(verdict.frees for verdict in view.verdicts),
    }


def _told(view: CacheView) -> str:
    return " ".join(_sentences(view))


def _sentences(view: CacheView) -> Iterator[str]:
    if not view.policy:
        yield _NO_POLICY
        return
    gone = [verdict for verdict in view.verdicts if verdict.evict]
    limit = f" of the {human_size(view.limit)} that it may have" if view.limit is not None else ""
    yield f"{len(gone)} of {len(view.verdicts)} entries would go, and free {human_size(sum(v.frees for v in gone))};"
    yield f"the cache takes {human_size(view.used)}{limit}."
    if view.pressed:
        yield "It stays above its limit: what is left is needed, or kept by a rule; --all says which."
