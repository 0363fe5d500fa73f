"""`banger ssh-config`: OpenSSH's own programs, and what builds on them, know every VM by name."""

from __future__ import annotations

import os
from pathlib import Path

import click

from reconciler.cli import sshinclude, wire
from reconciler.cli.options import option
from reconciler.cli.terminal import put, say
from reconciler.lib.errors import BangerError
from reconciler.lib.runtime import owner


@click.command("ssh-config")
@option("--print", "show", is_flag=True, help="Show the hosts, and change nothing; so it is without an option.")
@option("--install", is_flag=True, help="Have ssh know the VMs from now on.")
@option("--uninstall", is_flag=True, help="Undo that.")
@option(
    "--ssh-config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The configuration that gets the one line. [default: ~/.ssh/config]",
)
def ssh_config(*, show: bool, install: bool, uninstall: bool, config: Path | None) -> None:
    """Have ssh, scp, sftp, rsync and editors know the VMs.

    Each VM is a host `web-1.demo.vm`, and `web-1.vm` too while no other environment has a VM of that name. Its key is
    pinned: where another one answers, ssh refuses. No DNS and no running controller is needed.

    --install adds one `Include` line at the top of ~/.ssh/config, and writes the file that it names. Whatever changes
    VMs keeps that file up to date. ssh commands share one connection for each VM, which ends a minute after the last
    of them; `ssh -S none -A` lends an agent, which a shared connection cannot.
    """
    if show + install + uninstall > 1:
        raise click.UsageError("--print, --install and --uninstall exclude one another.")
    config = config or sshinclude.default_config()
    with wire.service() as service:
        found = service.ssh_config()
        if not install and not uninstall:
            put(found.text)
            return
        line = sshinclude.include_line(found.path)
        if install:
            _require_own(found.path)
            service.keep_ssh_config(True)
            changed = sshinclude.install(config, line)
        else:
            changed = sshinclude.uninstall(config, line)
            if found.kept:
                service.keep_ssh_config(False)
    if install:
        say(f"{config} includes {found.path}" if changed else f"{config} includes {found.path} already")
    else:
        say(f"{config} no longer includes {found.path}" if changed else f"{config} does not include {found.path}")


def _require_own(path: Path) -> None:
    """ssh reads a configuration only if it is its user's own or root's."""
    holder = next((found for folder in path.parents if (found := owner(folder)) is not None), os.geteuid())
    if holder not in (0, os.geteuid()):
        raise BangerError(
            f"{path.parent} belongs to the controller's account, and ssh reads no configuration of others",
            hint="`banger ssh-config --print` shows the hosts as they are now",
        )
