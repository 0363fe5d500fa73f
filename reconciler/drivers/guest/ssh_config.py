"""What OpenSSH's own programs are told of the VMs (ssh_config(5)). Builds the text only.

Every setting that decides whom one talks to, as whom and by which key is in it, so that neither the rest of the user's
configuration nor the system's has a say there: ssh takes the first value that it finds. What is left to them is comfort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.drivers.guest import shared
from reconciler.drivers.guest.ssh import ALIVE_INTERVAL, CONNECT_TIMEOUT, quoted

SHARED_SECONDS = 60
"""How long a shared connection outlives the last command that used it."""

_HEAD = "# Written by banger whenever a VM comes, changes or goes. `banger ssh-config --uninstall` removes it.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One VM.

    Parameters
    ----------
    names: what the user may call it.
    address, port: where it is reached: itself, or a forwarded port of this host.
    key: the private client key. known_hosts: the file with the guest's key under `alias`.
    shared: where shared connections may listen: the beginning of the path.
    """

    names: tuple[str, ...]
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    alias: str
    shared: Path


def text(hosts: Iterable[Host]) -> str:
    """The whole file. Raises BangerError for a path that ssh's configuration cannot express."""
    return _HEAD + "".join(f"\n{line}\n" if line.startswith("Host ") else f"  {line}\n" for line in _lines(hosts))


def _lines(hosts: Iterable[Host]) -> Iterator[str]:
    for host in hosts:
        yield f"Host {' '.join(host.names)}"
        yield f"HostName {host.address}"
        yield f"Port {host.port}"
        yield f"User {host.user}"
        yield f"IdentityFile {quoted(host.key)}"
        yield "IdentitiesOnly yes"
        yield f"UserKnownHostsFile {quoted(host.known_hosts)}"
        yield "GlobalKnownHostsFile /dev/null"
        yield f"HostKeyAlias {host.alias}"
        yield "StrictHostKeyChecking yes"
        yield "UpdateHostKeys no"
        yield "VerifyHostKeyDNS no"
        yield "CheckHostIP no"
        yield "CanonicalizeHostname no"
        # Set by a `Host *` of the user's, they would lead elsewhere, or lend the agent to every guest.
        yield "ProxyCommand none"
        yield "ForwardAgent no"
        yield f"ConnectTimeout {CONNECT_TIMEOUT}"
        yield f"ServerAliveInterval {ALIVE_INTERVAL}"
        if (control := shared.pattern(host.shared)) is not None:
            yield "ControlMaster auto"
            yield f"ControlPath {control}"
            yield f"ControlPersist {SHARED_SECONDS}"
        else:
            yield "ControlPath none"
