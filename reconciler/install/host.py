"""What an installation asks of the host's own tools: users, subordinate ids, systemd."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from reconciler.lib.run import run, which

USER = "banger"
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_SUBIDS = (Path("/etc/subuid"), Path("/etc/subgid"))
_SUBID_FIRST, _SUBID_COUNT = 100_000, 65_536  # SUB_UID_MIN, SUB_UID_COUNT of login.defs(5)


class Host:
    """The tools of the system, or of a user's own systemd. Every method may raise BangerError."""

    def __init__(self, *, user: bool) -> None:
        self.user = user

    def manager(self) -> bool:
        """Whether there is a systemd to talk to."""
        if not self.user:
            return _BOOTED.is_dir()
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        return bool(runtime) and Path(runtime, "systemd/private").exists()

    def systemctl(self, *words: str) -> list[str]:
        """The command line for `systemctl WORDS`."""
        return ["systemctl", *(["--user"] if self.user else []), *words]

    def active(self, unit: str) -> bool:
        return run(self.systemctl("is-active", "--quiet", unit), check=False).returncode == 0

    def enabled(self, unit: str) -> bool:
        return run(self.systemctl("is-enabled", "--quiet", unit), check=False).returncode == 0

    def has_user(self) -> bool:
        try:
            pwd.getpwnam(USER)
        except KeyError:
            return False
        return True

    def subids(self) -> list[str] | None:
        """The command that gives the user subordinate ids, or None if it has some."""
        tables = [_table(path) for path in _SUBIDS]
        if all(any(name == USER for name, _, _ in table) for table in tables) or which("usermod") is None:
            return None
        first = max([_SUBID_FIRST, *(start + count for table in tables for _, start, count in table)])
        span = f"{first}-{first + _SUBID_COUNT - 1}"
        return ["usermod", "--add-subuids", span, "--add-subgids", span, USER]

    def run(self, argv: Sequence[str]) -> None:
        run(argv, timeout=180)


def _table(path: Path) -> list[tuple[str, int, int]]:
    """The lines of subuid(5): name, first id, how many."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split(":") for line in lines]
    return [
        (row[0], int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[1].isdecimal() and row[2].isdecimal()
    ]
