"""Makes the installation be what the layout says, and takes it away.

Every file appears whole or not at all. What is to be written is recorded before the first is, so an installation that
was cut off is finished by the next, and removed completely by an uninstallation. A file that is not ours, or no longer
as we left it, is never touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from reconciler.install.host import Host
from reconciler.install.layout import PACKAGE, File, Layout, package_digest
from reconciler.install.record import Record, present
from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError

Say = Callable[[str], None]
_RESTARTED = "banger-helper.service"
# ProtectHome= and PrivateTmp= hide these from the service.
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - compared, not used


def install(layout: Layout, host: Host, say: Say, *, dry_run: bool = False) -> bool:
    """Installs, or brings an installation up to date. Returns whether anything changed, or would.

    Parameters
    ----------
    say: gets a sentence for each thing that is done, in its order; with `dry_run` for each that would be.

    Raises BangerError, before anything is changed: a file of somebody else is in the way, or the service could not
    read the package; later: a command failed.
    """
    live = layout.root == Path("/") or layout.user
    if live and not layout.user:
        _require_reachable(layout)
    old = Record.read(layout.record)
    changed = [file for file in layout.files if present(file.path) != file.digest]
    foreign = [file.path for file in changed if present(file.path) is not None and not old.ours(file.path)]
    if foreign:
        raise BangerError(
            f"not as banger left it: {', '.join(map(str, foreign))}",
            hint="move it away and try again; changes to a unit belong into a drop-in: systemctl edit UNIT",
        )
    kept = {file.path for file in layout.files}
    obsolete = [path for path in old.files if path not in kept and old.ours(path)]
    package = package_digest()
    new = Record({file.path: (file.digest,) for file in layout.files}, package)
    if old != new and not dry_run:
        union = {path: (*old.files.get(path, ()), *new.files.get(path, ())) for path in {*old.files, *new.files}}
        Record(union, old.package).write(layout.record)
    for file in changed:
        say(f"write {file.path}")
        if not dry_run:
            _write(file)
    for path in obsolete:
        say(f"remove {path}")
        if not dry_run:
            path.unlink(missing_ok=True)
    again = old.package not in ("", package)
    commands = _commands(layout, host, changed, obsolete, again=again) if live else []
    for argv in commands:
        say(f"run {' '.join(argv)}")
        if not dry_run:
            host.run(argv)
    # Last: as long as it is not written, the next installation restarts what this one could not.
    if old != new and not dry_run:
        new.write(layout.record)
    return bool(changed or obsolete or commands)


def uninstall(layout: Layout, host: Host, say: Say, *, dry_run: bool = False) -> bool:
    """Removes what was installed, as far as it is as we left it. VMs run on, and all state stays.

    Returns whether there was anything to remove. Raises BangerError.
    """
    record = Record.read(layout.record)
    if not record.files:
        return False
    if (layout.root == Path("/") or layout.user) and host.manager():
        # Without its file a unit cannot be named; a template has nothing to stop.
        units = [name for name, path in layout.units.items() if "@" not in name and record.ours(path)]
        if units:
            _do(host, host.systemctl("disable", "--now", *units), say, dry_run=dry_run)
    for path in sorted(record.files):
        if record.ours(path):
            say(f"remove {path}")
            if not dry_run:
                path.unlink(missing_ok=True)
        elif present(path) is not None:
            say(f"keep {path}: it is not as banger left it")
    if not dry_run:
        layout.record.unlink(missing_ok=True)
        try:
            layout.record.parent.rmdir()
        except OSError:
            pass  # something of somebody else's is in it
    if (layout.root == Path("/") or layout.user) and host.manager():
        _do(host, host.systemctl("daemon-reload"), say, dry_run=dry_run)
    return True


def _commands(layout: Layout, host: Host, changed: list[File], obsolete: list[Path], *, again: bool) -> list[list[str]]:
    """What has to be run after the files are there. `again`: other code runs than is installed."""
    commands = []
    paths = {file.path for file in changed}
    if layout.sysusers and (layout.sysusers in paths or not host.has_user()):
        commands.append(["systemd-sysusers", str(layout.sysusers)])
    if layout.sysusers and (subids := host.subids()):
        commands.append(subids)
    if not host.manager():
        return commands
    units = {name for name, path in layout.units.items() if path in paths}
    if units or obsolete:
        commands.append(host.systemctl("daemon-reload"))
    moved = [socket for socket in layout.sockets if socket in units and host.active(socket)]
    if moved:
        # A socket cannot be opened anew while its service holds it.
        commands.append(host.systemctl("stop", _RESTARTED))
        commands.append(host.systemctl("restart", *moved))
    if asleep := [s for s in layout.sockets if s not in moved and not (host.enabled(s) and host.active(s))]:
        commands.append(host.systemctl("enable", "--now", *asleep))
    running = [unit for unit in (layout.service, _RESTARTED) if (changed or again) and host.active(unit)]
    if running:
        commands.append(host.systemctl("try-restart", *running))
    return commands


def _write(file: File) -> None:
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file.path, file.content, mode=file.mode)
    except OSError as problem:
        raise BangerError(f"cannot write {file.path}: {problem.strerror}") from None


def _do(host: Host, argv: list[str], say: Say, *, dry_run: bool) -> None:
    say(f"run {' '.join(argv)}")
    if not dry_run:
        host.run(argv)


def _require_reachable(layout: Layout) -> None:
    """The service's sandbox must be able to read the package, and the state must not be root's own."""
    if os.geteuid() != 0:
        raise BangerError(
            "only root can install for the whole host", hint="use sudo; or --user for yourself; or --prefix"
        )
    for path in (PACKAGE, Path(sys.executable)):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            raise BangerError(
                f"the service could not read {path}: homes and temporary folders are hidden from it",
                hint="install banger elsewhere, and that one: python3 -m venv /opt/banger && "
                "/opt/banger/bin/pip install banger && /opt/banger/bin/banger system install",
            )
    database = layout.root / "var/lib/banger/banger.db"
    if database.exists() and database.stat().st_uid == 0:
        raise BangerError(
            f"{database.parent} has VMs of root's own, which the service would not find",
            hint=f"`banger delete` its environments, then move it away: mv {database.parent} {database.parent}.root",
        )
