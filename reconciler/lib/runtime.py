"""Which folder holds the sockets of this user's VMs. Apart from `paths`, because this is all that a quick start needs."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    from collections.abc import Mapping

# ruff: noqa: PTH100, PTH116, PTH118  # pathlib takes longer to load than all that is done here
OF_SERVICE = "/run/banger/controller"
"""RuntimeDirectory= of the system's controller, which runs as a user of its own."""
_OF_ROOT = "/run/banger"
_STATE_OF_ROOT = "/var/lib/banger"


def folder(env: Mapping[str, str], uid: int) -> str:
    """The runtime folder, by the rules of `paths.Paths.discover`."""
    if home := env.get("BANGER_HOME"):
        return os.path.join(os.path.abspath(home), "run")
    given = env.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given.startswith("/"):
        return given
    if uid == 0:
        return of_root()
    xdg = env.get("XDG_RUNTIME_DIR", "")
    if xdg.startswith("/"):
        return os.path.join(xdg, "banger")
    return os.path.join(env.get("HOME") or f"/home/{uid}", ".local/state/banger-run/banger")


def of_root() -> str:
    """Root's own, or, where the state is the system service's, that of the socket by which root asks it."""
    return _OF_ROOT if owner(_STATE_OF_ROOT) in (0, None) else OF_SERVICE


def owner(path: str | os.PathLike[str]) -> int | None:
    """The uid that owns a path; None if it is not there or cannot be asked for."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None
