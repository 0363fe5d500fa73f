"""A process that has nothing: bubblewrap (bwrap(1)) around a command.

It gets namespaces of its own for mounts, processes, network, IPC and host name, no capabilities, and a file system of which
only programs and libraries can be read and only what it is given can be written. It dies with its parent. A user gets a
user namespace for that, which needs no subordinate ids; root needs none, and without one can also give what lies in a
user's closed home. Resource limits are setrlimit(2)'s.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.lib.run import CommandError, require, run

HINT = "as root: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000; or run with sudo"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_PACKAGE = Path(__file__).parents[2]
_INSIDE = "/banger"
_LIBRARIES = ("zstandard", "zlib_ng")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a process may use.

    Parameters
    ----------
    memory: bytes of data, heaps and stacks (RLIMIT_DATA), per process.
    cpu: seconds of it.
    file: bytes of the largest file that it writes.
    """

    memory: int
    cpu: int
    file: int


def boxed(
    argv: Sequence[str | Path],
    bounds: Bounds,
    *,
    readable: Mapping[Path, str] | None = None,
    writable: Mapping[Path, str] | None = None,
    python: bool = False,
    root: bool = False,
) -> list[str]:
    """The command that runs `argv` in a sandbox.

    Parameters
    ----------
    readable, writable: files or folders of the host, and where the command finds them.
    python: whether this interpreter and this package are there, too.
    root: whether a user's number is 0 as the command sees it, and not that of nobody. It may do the same, nothing.

    Raises BangerError if a program for it is not installed.
    """
    require("bwrap", "bubblewrap")
    limits = (f"--data={bounds.memory}", f"--cpu={bounds.cpu}", f"--fsize={bounds.file}", "--stack=1048576", "--core=0")
    user = "0" if root else "65534"
    binds: list[str] = [word for path, inside in (readable or {}).items() for word in ("--ro-bind", str(path), inside)]
    binds += [word for path, inside in (writable or {}).items() for word in ("--bind", str(path), inside)]
    return [
        *("prlimit", *limits, "--"),
        *("bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if os.geteuid() == 0 else ("--unshare-user", "--uid", user, "--gid", user)),
        *("--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/usr/bin:/usr/sbin:/bin:/sbin"),
        *("--setenv", "LC_ALL", "C.UTF-8", "--dev", "/dev", "--ro-bind", "/usr", "/usr"),
        *_system(),
        *(_python() if python else ()),
        *binds,
        # What is not mounted lies in memory, which nobody should be able to fill either.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", "/", "--"),
        *map(str, argv),
    ]


def interpreter() -> tuple[str, ...]:
    """This Python, deaf to its user's settings."""
    return (sys.executable, "-sBP")


def refused() -> str | None:
    """Why this host does not let the user have a sandbox, or None if it does. Raises BangerError as `boxed`."""
    try:
        run(boxed(["true"], Bounds(1 << 28, 10, 0)), timeout=10)
    except CommandError as problem:
        return problem.output.strip() or problem.cause
    return None


def _system() -> list[str]:
    words = []
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    # Where programs of Debian's alternatives, and libraries in other places, are.
    for name in ("/etc/ld.so.cache", "/etc/alternatives"):
        words += ["--ro-bind-try", name, name]
    return words


def _python() -> list[str]:
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    origins = [spec.origin for name in _LIBRARIES if (spec := importlib.util.find_spec(name)) and spec.origin]
    sites = sorted({str(Path(origin).parents[1]) for origin in origins})
    folders |= {Path(site) for site in sites}
    words = ["--setenv", "PYTHONPATH", ":".join((_INSIDE, *sites)), "--ro-bind", str(_PACKAGE)]
    words += [f"{_INSIDE}/{_PACKAGE.name}", "--setenv", "MALLOC_ARENA_MAX", "2"]
    for folder in sorted(folders):
        if not folder.is_relative_to("/usr"):
            words += ["--ro-bind", str(folder), str(folder)]
    return words
