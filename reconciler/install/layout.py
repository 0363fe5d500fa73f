"""Which file goes where. Reads the package, writes nothing."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import reconciler
from reconciler.install.archive import helper_archive
from reconciler.lib.errors import BangerError

PACKAGE = Path(reconciler.__file__).parent
SYSTEM_UNITS = (
    "banger-builder.socket",
    "banger-builder@.service",
    "banger-controller.service",
    "banger-helper.service",
    "banger-helper.socket",
)
_LIBRARY = Path("usr/lib/banger")
# Where administrators' units and users go: systemd.unit(5), sysusers.d(5).
_UNITS = Path("etc/systemd/system")
_SYSUSERS = Path("etc/sysusers.d/banger.conf")


@dataclass(frozen=True, slots=True)
class File:
    """One file to install. `mode` as for chmod(2)."""

    path: Path
    content: bytes
    mode: int = 0o644

    @property
    def digest(self) -> str:
        """What tells this content and mode from another."""
        return digest(self.content, self.mode)


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that an installation consists of.

    Parameters
    ----------
    root: what the paths begin with; `/` but for packagers, and a home for a user.
    record: where the installation is remembered.
    sockets: units that are started when it is done.
    user: for one user's own systemd, and not the system's.
    """

    root: Path
    files: tuple[File, ...]
    record: Path
    sockets: tuple[str, ...]
    user: bool

    @property
    def service(self) -> str:
        return "banger-controller.service"

    @property
    def sysusers(self) -> Path | None:
        return None if self.user else self.root / _SYSUSERS

    @property
    def units(self) -> dict[str, Path]:
        """Unit name → its file."""
        return {file.path.name: file.path for file in self.files if file.path.suffix in (".service", ".socket")}


def digest(content: bytes, mode: int) -> str:
    """SHA-256 over the content, and the mode."""
    return f"{hashlib.sha256(content).hexdigest()}:{mode:o}"


def system(prefix: Path = Path("/"), python: str = sys.executable) -> Layout:
    """The installation for the whole host, below `prefix`.

    Parameters
    ----------
    python: the interpreter that has this package, for the launchers.
    """
    library = prefix / _LIBRARY
    files = [
        _launcher(library / "banger", python, "reconciler"),
        _launcher(library / "builder", python, "reconciler.daemon.builder"),
        File(library / "helper.pyz", helper_archive(PACKAGE)),
        *(File(prefix / _UNITS / name, _read(name)) for name in SYSTEM_UNITS),
        File(prefix / _SYSUSERS, _read("banger.sysusers")),
    ]
    sockets = tuple(name for name in SYSTEM_UNITS if name.endswith(".socket"))
    return Layout(prefix, tuple(files), library / "installed.json", sockets, user=False)


def user(env: Mapping[str, str] | None = None, python: str = sys.executable) -> Layout:
    """The installation for the user whose environment this is."""
    env = os.environ if env is None else env
    home = Path(env.get("HOME") or Path.home())
    config = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME", "").startswith("/") else home / ".config"
    # The unit names it so: there is a specifier for the home, and none for a folder of libraries.
    library = home / ".local/lib/banger"
    files = (
        _launcher(library / "banger", python, "reconciler"),
        File(config / "systemd/user/banger-controller.service", _read("user/banger-controller.service")),
    )
    return Layout(home, files, library / "installed.json", (), user=True)


def package_digest(package: Path = PACKAGE) -> str:
    """Changes with every line of the package's code: whether what runs is what is installed."""
    total = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"{path.relative_to(package)}\0{path.stat().st_size}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def _launcher(path: Path, python: str, module: str) -> File:
    # -P: a module of the same name in the working folder is not ours (python(1)).
    return File(path, f'#!/bin/sh\nexec {shlex.quote(python)} -P -m {module} "$@"\n'.encode(), 0o755)


def _read(name: str) -> bytes:
    # In a wheel they lie inside the package (pyproject.toml, force-include), in a checkout beside it.
    for folder in (PACKAGE / "_data", PACKAGE.parent):
        try:
            return (folder / "systemd" / name).read_bytes()
        except FileNotFoundError:
            continue
    raise BangerError(f"systemd/{name} is missing from this installation", hint="install banger again")
