"""SSH keys, made on the host by ssh-keygen(1): the one with which banger enters guests, and each guest's own.

Since the host makes a guest's key before its first boot, it knows what to expect from the first connection on.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.lib import atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.run import require, run

HOST_KEY = "ssh_host_ed25519_key"


def ensure_client_key(path: Path) -> str:
    """The public half of the client key at `path`, which is made if there is none.

    The folder gets mode 0700, the key 0600. Raises BangerError if ssh-keygen is missing or fails, if the folder
    cannot be written, or if the existing file is no usable key: it is never replaced.
    """
    return _ensure(path, "banger")


def make_host_key(folder: Path, comment: str) -> str:
    """The public half of a guest's host key `folder`/ssh_host_ed25519_key, which is made if there is none.

    `comment` ends up in the public key; errors as for `ensure_client_key`.
    """
    return _ensure(folder / HOST_KEY, comment)


def known_hosts_line(alias: str, public: str) -> str:
    """A line for known_hosts (sshd(8)) that pins `public` to `alias`, the HostKeyAlias of our connections."""
    kind, blob = public.split()[:2]
    return f"{alias} {kind} {blob}\n"


def _ensure(path: Path, comment: str) -> str:
    try:
        if path.exists():
            return _public(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        with atomic.exclusive(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                _make(path, comment)
        return _public(path)
    except OSError as problem:
        raise BangerError(
            f"cannot make the key {path}: {problem.strerror}", error_class=ErrorClass.RETRYABLE
        ) from problem


def _make(path: Path, comment: str) -> None:
    keygen = require("ssh-keygen", "openssh-client")
    with atomic.staging(path.parent) as stage:
        made = stage / path.name
        run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made], timeout=60)
        # The private half last: where it exists, the pair is whole.
        atomic.publish(made.with_name(f"{made.name}.pub"), path.with_name(f"{path.name}.pub"))
        atomic.publish(made, path)


def _public(path: Path) -> str:
    try:
        text = path.with_name(f"{path.name}.pub").read_text().strip()
    except FileNotFoundError:
        text = ""
    if len(text.split()) >= 2:
        return text
    # Somebody copied the private half alone: it contains the public one.
    return run([require("ssh-keygen", "openssh-client"), "-y", "-f", path], timeout=60).stdout.decode().strip()
