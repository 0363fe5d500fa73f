"""`banger cp`: files and folders, into a VM and out of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.api.service import Channel, VmRef, WayIn
from reconciler.cli import joining, target, wire
from reconciler.cli.options import file_option, option, quiet_option
from reconciler.cli.terminal import draws
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.run import interactive, require

_PARTIAL = ".banger-partial"
# Archive with hard links and holes, whose zeros are not worth sending; a file that was cut off is kept aside, and gone on with the next time.
_OPTIONS = ("--archive", "--compress", "--hard-links", "--sparse", f"--partial-dir={_PARTIAL}", "--secluded-args")
_OF_RSYNC = (
    (127, "rsync is not installed in the VM", "add it to the image's packages"),
    (
        12,
        "rsync is not installed in the VM, or the connection was cut",
        "add it to the image's packages; else try again",
    ),
)
_SSH_FAILED = 255


@click.command()
@file_option()
@option("--delete", is_flag=True, help="Remove what a copied folder has at its destination and not at its source.")
@option("-n", "--dry-run", is_flag=True, help="Only list what would be copied.")
@quiet_option()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("destination", metavar="DESTINATION")
def cp(
    *, file: Path | None, delete: bool, dry_run: bool, quiet: bool, sources: tuple[str, ...], destination: str
) -> int:
    """Copy files and folders into a VM or out of it.

    One side is `VM:PATH`, as in `banger cp notes src web-1:work/` or `banger cp web-1:/var/log .`; a local name with a
    colon is written `./a:b`. A relative path in the VM begins at the home of its user. `src` copies the folder,
    `src/` what is in it.

    Modes, owners, links, times and holes stay as they are, and what is there already is not sent again: an interrupted
    copy is gone on with by the same command. Every file's checksum is compared after its transfer. It is done by
    rsync, which this host and the VM's image must have.
    """
    away = [_split(word) for word in sources]
    into = _split(destination)
    vms = {found[0].removeprefix("vm/") for found in (*away, into) if found is not None}
    if len(vms) != 1 or (into is None) is (None in away) or (into is None and not all(away)):
        raise click.UsageError("Either all sources or the destination is in a VM, and in one: write it as VM:PATH.")
    with wire.service() as service:
        ref = target.vm(service, vms.pop(), file)
        way = service.way_in(ref, None)
    if way.channel is Channel.AGENT:
        raise UsageError(
            f"vm {ref} has no network for a copy",
            hint=f"tar c SOURCE | banger exec {ref} -- tar x -C DESTINATION goes by its agent",
        )
    entry, failed = joining.join(way)
    if failed is not None:
        return failed
    words = [*_OPTIONS, *_talk(quiet=quiet, dry_run=dry_run), *(["--delete"] if delete else [])]
    words += ["-e", _shell(entry, way)]
    host = way.argv[-1]
    places = [*(_place(host, found, word) for found, word in zip(away, sources, strict=True))]
    return _run([require("rsync", "rsync"), *words, "--", *places, _place(host, into, destination)], ref)


def _split(word: str) -> tuple[str, str] | None:
    """VM and path of `VM:PATH`; None for a local path, which has no colon before its first slash but in `vm/a/b:`."""
    name, colon, path = word.partition(":")
    local = not colon or not name or name.startswith((".", "/", "~")) or Path(word).exists()
    return None if local else (name, path)


def _place(host: str, found: tuple[str, str] | None, word: str) -> str:
    if found is not None:
        return f"{host}:{found[1] or '.'}"
    # rsync takes a colon before the first slash for a host.
    return word if word.startswith(("/", "./", "../")) else f"./{word}"


def _talk(*, quiet: bool, dry_run: bool) -> Sequence[str]:
    if dry_run:
        return ("--dry-run", "--itemize-changes")
    return ("--info=progress2",) if not quiet and draws(sys.stdout) else ()


def _shell(entry: list[str], way: WayIn) -> str:
    """How rsync enters the VM: ssh and its options, without `--` and the host, which it adds itself."""
    assert list(entry[-2:]) == ["--", way.argv[-1]]
    program, _, *options = entry
    return shlex.join([program, *options[:-2]])


def _run(argv: list[str], ref: VmRef) -> int:
    code = interactive(argv)
    if code in (0, _SSH_FAILED) or code > 128:
        return code
    for known, cause, hint in _OF_RSYNC:
        if code == known:
            raise BangerError(f"copying failed: {cause}", hint=hint)
    raise BangerError(
        f"not everything was copied: rsync ended with exit code {code}",
        hint=f"what it could not copy is told above; the same command goes on with the rest of {ref}",
    )
