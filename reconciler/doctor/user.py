"""What a user without root needs to build images."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.drivers.images import sandbox
from reconciler.lib.run import run, which

_SUBIDS = (Path("/etc/subuid"), Path("/etc/subgid"))
_ENOUGH = 65536


def namespaces() -> Iterator[Check]:
    """User namespaces (user_namespaces(7)); distributions and containers switch them off in several ways, so try."""
    if os.geteuid() == 0:
        yield Check(name="user-namespaces", status=Status.OK, detail="not needed by root")
        return
    if which("unshare") is None:
        return
    tried = run(["unshare", "--user", "--map-root-user", "true"], check=False, timeout=10)
    if tried.returncode == 0:
        yield Check(name="user-namespaces", status=Status.OK, detail="may be made")
    else:
        said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
        yield Check(
            name="user-namespaces",
            status=Status.FAIL,
            detail=said[-1] if said else f"unshare failed with exit code {tried.returncode}",
            hint="as root: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000; or run with sudo",
        )


def sandboxes() -> Iterator[Check]:
    """What layers of images are read in (bwrap(1)). Tried as it will be used."""
    if which("bwrap") is None:
        return
    refused = sandbox.refused()
    yield Check(
        name="sandbox",
        status=Status.FAIL if refused else Status.OK,
        detail=refused or "may be made",
        hint=sandbox.HINT if refused else None,
    )


def subordinate_ids() -> Iterator[Check]:
    """A range of ids for the owners of an image's files (subuid(5)), and the setuid program that maps them."""
    if os.geteuid() == 0:
        yield Check(name="subordinate-ids", status=Status.OK, detail="not needed by root")
        return
    if which("newuidmap") is None:
        yield Check(
            name="subordinate-ids",
            status=Status.FAIL,
            detail="newuidmap is not installed",
            hint="apt-get install uidmap",
            packages=("uidmap",),
        )
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    missing = [str(path) for path in _SUBIDS if granted(path, user, os.geteuid()) < _ENOUGH]
    if missing:
        yield Check(
            name="subordinate-ids",
            status=Status.FAIL,
            detail=f"no range of {_ENOUGH} ids for {user} in {' and '.join(missing)}",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    else:
        yield Check(name="subordinate-ids", status=Status.OK, detail=f"{_ENOUGH} for {user}")


def granted(path: Path, user: str, uid: int) -> int:
    """How many ids a subuid(5) file gives to a user, who may stand there by name or by number."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    fields = (line.split(":") for line in lines)
    return sum(int(f[2]) for f in fields if len(f) == 3 and f[0] in (user, str(uid)) and f[2].isdigit())
