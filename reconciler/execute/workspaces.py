"""Workspaces: the first copy of a repository, shipped by whoever starts the VM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconciler.drivers.guest.readiness import endpoint
from reconciler.drivers.guest.ssh import ssh_argv
from reconciler.execute.readiness import observed
from reconciler.execute.tools import Tools
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.progress import Progress
from reconciler.model.actions import ShipWorkspace
from reconciler.model.ids import host_alias
from reconciler.workspace.push import Request, ship_first


def ship(action: ShipWorkspace, tools: Tools, progress: Progress) -> None:
    """Ships it, unless the guest has a copy already; then notes where to, so that no plan asks for it again.

    Raises BangerError, retryable if the guest cannot be entered just now.
    """
    row = tools.inventory.vm(tools.environment, action.name)
    if row is None:
        raise BangerError(f"vm {action.name} is not in the inventory of environment {tools.environment}")
    there = endpoint(observed(row, tools), 22)
    if there is None:
        raise BangerError(
            f"vm {action.name} has no network, so no workspace can be shipped to it", hint="give it `network: user`"
        )
    place = tools.paths.vm(tools.environment, action.name)
    host, port = there

    def enter(words: Sequence[str]) -> list[str]:
        return ssh_argv(
            host=host,
            port=port,
            key=tools.paths.client_key,
            known_hosts=place.known_hosts,
            alias=host_alias(row.id),
            user=row.spec.user,
            command=words,
            tty=False,
        )

    wanted = action.workspace
    ship_first(
        enter,
        Request(host=Path(wanted.host), guest=wanted.guest, vm=action.name, untracked=wanted.untracked),
        progress,
    )
    try:
        place.ssh_entry.unlink(missing_ok=True)  # left by who knew of no workspace
        write_atomic(place.workspace, f"{wanted.guest}\n".encode())
    except OSError as problem:
        raise BangerError(
            f"cannot write {place.workspace}: {problem.strerror}", error_class=ErrorClass.RETRYABLE
        ) from problem
