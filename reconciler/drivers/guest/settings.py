"""Variables and secrets of a guest: how each of its programs comes to them, and how they get there.

What starts a program reads its own kind of file, so each of these is written, all of them below /run, in memory:

    banger/env             a shell's, for whoever enters by other ways than ssh: `set -a; . /run/banger/env`
    banger/env.secret      likewise with the secrets, for root alone
    banger/sshd-env.conf   sshd_config(5), SetEnv: every session of ssh
    systemd/system.conf.d  systemd-system.conf(5), DefaultEnvironment: every service; without the secrets
    banger/secrets/NAME    the value of a secret and nothing else, with its owner and mode

Variables are on the config disk already. Secrets never are: they come once the guest can be entered.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Iterable, Mapping
from importlib import resources

from reconciler.drivers.guest.remote import Remote
from reconciler.lib.errors import BangerError
from reconciler.model.inside import Secret, Variable

MANAGER = "systemd/system.conf.d/50-banger.conf"

_SECONDS = 120.0
_BUSYBOX = "/run/banger/busybox"

Value = tuple[Secret, bytes]


def shell(variables: Iterable[tuple[str, str]]) -> str:
    """Assignments that a POSIX shell takes as they are."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables)


def sshd(variables: Iterable[tuple[str, str]]) -> str:
    """All in one line: sshd heeds only the first SetEnv (OpenSSH: servconf.c)."""
    words = [_quoted(f"{name}={value}") for name, value in variables]
    return f"SetEnv {' '.join(words)}\n" if words else ""


def manager(variables: Iterable[tuple[str, str]]) -> str:
    """A per cent sign begins a specifier of systemd's."""
    words = [_quoted(f"{name}={value}").replace("%", "%%") for name, value in variables]
    return f"[Manager]\nDefaultEnvironment={' '.join(words)}\n"


def pairs(variables: Iterable[Variable]) -> list[tuple[str, str]]:
    return [(variable.name, variable.value) for variable in variables]


def secret_pairs(values: Iterable[Value]) -> list[tuple[str, str]]:
    """The secrets that are variables too. Raises BangerError for one that cannot be; a line break at its end is dropped."""
    found = []
    for secret, value in values:
        if secret.guest is not None:
            continue
        try:
            text = value.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            text = "\n"
        if not text.isprintable():
            raise BangerError(
                f"secret {secret.name} is not one line of text, as a variable has to be",
                hint="give it a `guest` path, and it is a file",
            )
        found.append((secret.name, text))
    return found


def deliver(remote: Remote, variables: Iterable[Variable], values: Iterable[Value]) -> None:
    """Puts all of it into a guest that runs, in memory. What stood there before is replaced.

    Raises BangerError, also as the remote does; never with a value in it.
    """
    values = tuple(values)
    own, secret = pairs(variables), secret_pairs(values)
    lines = [f"{secret.name}\t{secret.mode:o}\t{secret.owner}\n" for secret, _ in values]
    files: dict[str, bytes] = {
        "list": "".join(lines).encode(),
        "env": shell(own).encode(),
        "env.secret": shell(secret).encode(),
        "sshd-env.conf": sshd([*own, *secret]).encode(),
        "manager.conf": manager(own).encode(),
        **{f"secrets/{secret.name}": value for secret, value in values},
    }
    done = remote.run([_BUSYBOX, "sh", "-c", _script()], input=_archive(files), timeout=_SECONDS)
    if done.returncode != 0:
        said = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith("failed ")]
        why = said[0].removeprefix("failed ") if said else f"exit code {done.returncode}"
        raise BangerError(f"the guest does not take its settings: {why}", hint="does it have that user?")


def _script() -> str:
    return resources.files(__package__).joinpath("settings.sh").read_text(encoding="utf-8")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("secrets")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o711
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o600, len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
