"""What the guest's shell is told, so that a command runs there as if it ran here. Light to import. Pure.

sshd hands one line to the login shell of the user (RFC 4254, 6.5). Each command bears a mark in its environment by which
it and what it starts are found again: that is how signals reach it, for which OpenSSH's client has no means.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what typing has by that name, without the time that typing takes to load
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MARK = "BANGER_EXEC"
BUSYBOX = "/run/banger/busybox"
"""In every guest, for its initramfs leaves it there."""


def quote(word: str) -> str:
    """A word for a POSIX shell (as shlex.quote, which takes longer to load than this program runs)."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def run_line(words: Sequence[str], mark: str, *, cwd: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a command.

    The shell stays and passes on how the command ended: a signal is no exit code of sshd's, and 128+n of a shell.
    """
    settings = [f"{MARK}={mark}", *(f"{name}={value}" for name, value in (env or {}).items())]
    # A shell tells on its stderr which signal ended a command; dash, on that which the command had.
    line = f"exec 3>&2 2>/dev/null; (exec env {' '.join(map(quote, (*settings, *words)))} 2>&3 3>&-); exit $?"
    return line if cwd is None else f"cd {quote(cwd)} || exit 126; {line}"


def signal_line(mark: str, number: int) -> str:
    """Sends a signal to a command and all that it started. Looks again for a while: it may not have begun yet."""
    # Variables end in a zero (proc_pid_environ(5)), which -z takes for the end of a line.
    find = f"{BUSYBOX} grep -lszxF {quote(f'{MARK}={mark}')} /proc/[0-9]*/environ"
    script = (
        f"n=0; while [ $n -lt 50 ]; do found=; for f in $({find}); do f=${{f#/proc/}}; "
        f"kill -{number} ${{f%/environ}} 2>/dev/null && found=1; done; "
        f'[ -z "$found" ] || exit 0; n=$((n + 1)); {BUSYBOX} sleep 0.2; done'
    )
    return f"exec {BUSYBOX} sh -c {quote(script)}"
