"""The one module of the command line that knows what is behind `Service`: a controller, or the daemon in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from reconciler.lib.paths import Paths

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    import socket

    from reconciler.api.service import Service, VmRef, WayIn
    from reconciler.model.catalog import CatalogSource

# ruff: noqa: PLC0415  # most of what the daemon wires is not needed to print a help text


def connect() -> Service:
    """A service on this user's state: the running controller's, or one of our own. The caller closes it."""
    paths = Paths.discover()
    if paths.api_socket.exists():
        from reconciler.api.client import RemoteService, reachable

        if reachable(paths.api_socket):
            return RemoteService(paths.api_socket)
    paths.require_own()
    from reconciler.daemon.local import open_service

    return open_service(paths)


@contextmanager
def service(*, sweep: bool = True) -> Iterator[Service]:
    """`connect`, closed at the end.

    sweep: whether one-off VMs are removed whose command was killed. Looking for them costs one look at a folder.
    """
    opened = connect()
    try:
        if sweep and any((Paths.discover().state / "runs").glob("*")):
            from reconciler.cli.oneoff import sweep as remove

            remove(opened)
        yield opened
    finally:
        opened.close()


def run_by_agent(
    way: WayIn, command: Sequence[str], *, cwd: str | None, env: Mapping[str, str], timeout: float | None
) -> int:
    """Runs a command in a guest over the VMM's line to its agent, from this process even beside a controller."""
    from reconciler.daemon.by_agent import run_command

    return run_command(way, command, cwd=cwd, env=env, timeout=timeout)


def attach(way: WayIn, ref: VmRef) -> AbstractContextManager[socket.socket]:
    """The serial line of a running VM, for this process alone while the block lasts."""
    from reconciler.daemon.console import attached

    return attached(way, ref)


def update_catalogs(sources: Sequence[CatalogSource], note: Callable[[str], None]) -> None:
    """Fetches catalogs into the cache of this user, who reads the files that refer to them."""
    from reconciler.daemon.catalogs import update

    update(Paths.discover(), sources, note)


def run_controller(sources: Sequence[Path], log_format: str) -> None:
    """Runs the controller of this user's state until the process is told to end."""
    from reconciler.daemon.process import run_controller as run

    run(Paths.discover(), sources, log_format)
