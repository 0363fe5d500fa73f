"""A systemd scope of its own for each VMM, where there is a systemd that this user may ask for one.

In its scope a VMM is no part of the controller's cgroup, nor of the login that started it: neither's end is its end, and
`systemctl status` shows it by its name (systemd.scope(5)). Without a scope it runs as well: it daemonizes, and the
controller's unit says KillMode=process.

The system's controller, a user without a manager, gets none: to allow it StartTransientUnit over polkit would be to
allow it any unit as root, since the request's details are not shown to the rules.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from reconciler.lib.run import CommandError, run, which

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
# Runs only once the scope stands; then, and only then, is a failure the command's own.
_MARK = ': >"$0" && exec "$@"'
# For programs, for temporary files, and for systemd-run(1) to find the user's manager.
_NEEDED = frozenset({"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"})


def unit(install: str, vm_id: str) -> str:
    """The name of the scope. Ids are letters, digits, `_` and `-`, which all may stand in a unit's name."""
    return f"banger-vm-{install}-{vm_id}.scope"


def prefix(install: str, vm_id: str) -> list[str]:
    """The words before a command that put it into a scope; none if there can be no scope."""
    program = which("systemd-run")
    if program is None or not _BOOTED.is_dir():
        return []
    if os.geteuid() == 0:
        manager = "--system"
    elif (folder := os.environ.get("XDG_RUNTIME_DIR")) and Path(folder, "systemd/private").exists():
        manager = "--user"
    else:
        return []
    name = unit(install, vm_id)
    return [program, manager, "--scope", "--quiet", "--collect", f"--unit={name}", f"--description=VM {vm_id}", "--"]


def _without_surroundings() -> dict[str, str | None]:
    """Takes out of a VMM's environment what it does not need: there may be secrets, and a VMM outlives who started it."""
    return {name: None for name in os.environ if name not in _NEEDED}


def launch(
    argv: Sequence[str], *, install: str, vm_id: str, folder: Path, timeout: float, pass_fds: Sequence[int]
) -> None:
    """Runs a command that daemonizes, in a scope if there can be one, else without. It is started once.

    Parameters
    ----------
    folder: for a file that shows how far it came.
    timeout: seconds.

    Raises CommandError if the command itself fails; a scope that cannot be had is no failure.
    """
    before = prefix(install, vm_id)
    env = _without_surroundings()
    if before:
        mark = folder / "scoped"
        mark.unlink(missing_ok=True)
        try:
            run([*before, "/bin/sh", "-c", _MARK, mark, *argv], timeout=timeout, pass_fds=pass_fds, env=env)
            return
        except CommandError:
            if mark.exists():
                raise
        finally:
            mark.unlink(missing_ok=True)
    run(argv, timeout=timeout, pass_fds=pass_fds, env=env)
