"""Writes files into a guest that runs: what files.sh does there, and what it has to say."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.drivers.guest import bundle
from reconciler.drivers.guest.remote import Remote
from reconciler.drivers.guest.sources import Entry
from reconciler.lib.errors import BangerError

_SECONDS = 600.0
_SHOWN = 3
_BUSYBOX = "/run/banger/busybox"


def write(remote: Remote, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Makes the guest's files these and no other ones of ours. Returns what a user should know of each that was kept.

    Raises BangerError if one cannot be written, after all others were; and as the remote does.
    """
    # The text of the program goes along: the guest may have been started by an older banger.
    done = remote.run([_BUSYBOX, "sh", "-c", bundle.script()], input=bundle.archive(entries), timeout=_SECONDS)
    said = done.stdout.decode("utf-8", "replace").splitlines()
    failed = [line.removeprefix("failed ") for line in said if line.startswith("failed ")]
    if done.returncode != 0 or failed:
        words = failed or done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        raise BangerError(
            f"files cannot be written in the guest: {'; '.join(words[:_SHOWN]) or f'exit code {done.returncode}'}{more}",
            hint="does the guest have that user, and room on its disk?",
        )
    return tuple(line.partition(" ")[2] for line in said)
