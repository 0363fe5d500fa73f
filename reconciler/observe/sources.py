"""What stands on the host for guests: a digest of each file or folder, and a keyed hash of each secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.inside import Secret
from reconciler.model.observed import Unknown
from reconciler.model.vm import Vm

# ruff: noqa: PLC0415  # most environments have no such files


def observe_sources(vms: Iterable[Vm]) -> Mapping[str, str | Unknown]:
    """Path on the host → digest, each read once."""
    vms = list(vms)
    hosts = {file.host for vm in vms for file in vm.files if file.host is not None}
    hosts |= {step.script for vm in vms for step in vm.provision if step.script is not None}
    if not hosts:
        return {}
    from reconciler.drivers.guest.sources import digest

    found: dict[str, str | Unknown] = {}
    for host in sorted(hosts):
        try:
            found[host] = digest(host)
        except BangerError as problem:
            found[host] = Unknown(str(problem))
    return found


def observe_secrets(vms: Iterable[Vm], paths: Paths) -> Mapping[Secret, str | Unknown]:
    """Each value is read, hashed and forgotten."""
    wanted = dict.fromkeys(secret for vm in vms for secret in vm.secrets)
    if not wanted:
        return {}
    from reconciler.drivers.guest import secrets

    found: dict[Secret, str | Unknown] = {}
    for secret in wanted:
        try:
            found[secret] = secrets.digest(secret, secrets.key(paths.secrets_key))
        except BangerError as problem:
            found[secret] = Unknown(str(problem))
    return found
