"""`banger system …`: banger as a part of this host."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.options import option, quiet_option
from reconciler.cli.terminal import harmless, say
from reconciler.install import installer, layout
from reconciler.install.host import Host
from reconciler.lib.errors import UsageError

_ROOT = Path("/")


@click.group()
def system() -> None:
    """Install the units and the root helper on this host, or remove them."""


def _where(command: click.Command) -> click.Command:
    for decorate in (
        option(
            "--prefix",
            type=click.Path(path_type=Path, file_okay=False),
            default=_ROOT,
            show_default=True,
            metavar="DIR",
            help="Put the files below DIR and run nothing: for packages.",
        ),
        option("--user", is_flag=True, help="For yourself and your own systemd, without root."),
        option("--dry-run", is_flag=True, help="Only list what would be done."),
        quiet_option(),
    ):
        command = decorate(command)
    return command


@_where
@system.command()
def install(*, prefix: Path, user: bool, dry_run: bool, quiet: bool) -> None:
    """Install the units, the root helper and the user banger, or bring them up to date.

    A second time changes nothing. After an upgrade of the package it restarts what runs; VMs go on meanwhile. The
    controller is not started: put files into /etc/banger/banger.d (with --user into ~/.config/banger/banger.d), then
    `systemctl enable --now banger-controller`.
    """
    target, host = _target(prefix, user)
    changed = installer.install(target, host, _teller(quiet=quiet), dry_run=dry_run)
    if quiet:
        return
    if not changed:
        say("nothing to do: banger is installed and up to date")
    elif not dry_run and (user or prefix == _ROOT) and host.manager() and not host.active(target.service):
        say(f"next: {' '.join(host.systemctl('enable', '--now', target.service))}")


@_where
@system.command()
def uninstall(*, prefix: Path, user: bool, dry_run: bool, quiet: bool) -> None:
    """Remove what `banger system install` installed.

    VMs go on, and all state stays: VMs, disks, images, and the user banger, who owns them.
    """
    target, host = _target(prefix, user)
    if not installer.uninstall(target, host, _teller(quiet=quiet), dry_run=dry_run) and not quiet:
        say("nothing to do: banger is not installed")


def _target(prefix: Path, user: bool) -> tuple[layout.Layout, Host]:
    if user and prefix != _ROOT:
        raise UsageError("--user and --prefix exclude each other")
    return layout.user() if user else layout.system(prefix.absolute()), Host(user=user)


def _teller(*, quiet: bool) -> installer.Say:
    return lambda text: None if quiet else say(harmless(text))
