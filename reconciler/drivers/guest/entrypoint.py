"""What an image says of itself: the program it is for, and how that is to run (OCI image specification, config.md)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from reconciler.lib.errors import BangerError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APPLETS = "/run/banger/tools/applets"
"""At the end of every PATH: what the image lacks, it has from there."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNAL = re.compile(r"(SIG)?(?P<name>[A-Z][A-Z0-9+-]*|[0-9]{1,2})")
_INITS = ("init", "systemd", "openrc-init", "runit-init")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint:
    """How the program of an image runs.

    Parameters
    ----------
    argv: program and arguments; empty for an image that is for nothing in particular.
    env: its variables; those whose names no shell can have are left out.
    user: `name`, `uid`, `name:group` or `uid:gid`, as the image's own files have them; empty for root.
    workdir: an absolute path.
    stop_signal: its name without `SIG`, or its number.
    """

    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = "/"
    stop_signal: str = "TERM"

    @property
    def is_init(self) -> bool:
        """Whether it is one of those that insist on being the first process of all."""
        return bool(self.argv) and PurePosixPath(self.argv[0]).name in _INITS

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Entrypoint:
        """Of the `config` of an image's manifest. What is missing, or null, is as the specification has it.

        Raises BangerError for what no program could be started with.
        """
        argv = (*_texts(config, "entrypoint"), *_texts(config, "cmd"))
        pairs = [text.partition("=") for text in _texts(config, "env")]
        signal = _SIGNAL.fullmatch(_text(config, "stopSignal") or "SIGTERM")
        if signal is None:
            raise _unusable("stopSignal", config)
        workdir = PurePosixPath("/", _text(config, "workdir"))
        return cls(
            argv=argv if argv[:1] != ("",) else (),
            env=tuple((name, value) for name, _, value in pairs if _VARIABLE.fullmatch(name)),
            user=_text(config, "user"),
            workdir=str(workdir),
            stop_signal=signal["name"],
        )

    def files(self) -> Mapping[str, tuple[str, int]]:
        """Path below /run, to content and mode. Shell that is read by the scripts beside it, each value quoted whole."""
        env = dict(self.env)
        path = f"{env.pop('PATH', '') or DEFAULT_PATH}:{APPLETS}"
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in (*env.items(), ("PATH", path))]
        found = {"banger/image/environment": ("".join(lines), 0o644)}
        if self.argv:
            told = (
                f"user={shlex.quote(self.user)}\nworkdir={shlex.quote(self.workdir)}\nset -- {shlex.join(self.argv)}\n"
            )
            found["banger/image/service"] = (told, 0o644)
            found["banger/image/signal"] = (f"{self.stop_signal}\n", 0o644)
        if self.is_init:
            found["banger/image/is-init"] = ("", 0o644)
        return found


def _texts(config: Mapping[str, Any], key: str) -> Sequence[str]:
    values = config.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) and "\0" not in value for value in values):
        raise _unusable(key, config)
    return tuple(values)


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key) or ""
    if not isinstance(value, str) or not value.isprintable():
        raise _unusable(key, config)
    return value


def _unusable(key: str, config: Mapping[str, Any]) -> BangerError:
    shown = repr(config[key])
    return BangerError(
        f"the image's config has an unusable {key}: {shown[:100]}", hint="rebuild the image, or take another"
    )
