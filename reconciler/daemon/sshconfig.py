"""The file that OpenSSH's own programs read the VMs from: made when asked for, kept up to date for as long as it is there.

The file itself is the mark that it is wanted. Who changes something about VMs brings it up to date before the lock is
let go; a controller does after each pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from reconciler.drivers.guest import ssh_config
from reconciler.lib.atomic import exclusive, write_atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import Paths
from reconciler.model.ids import host_alias
from reconciler.model.vm import DOMAIN, NO_NETWORK, USER_NETWORK
from reconciler.store.inventory import Inventory, VmRow


def render(paths: Paths, inventory: Inventory | None) -> str:
    """What the file should say now: every VM that can be reached, or could be if it ran. Raises BangerError.

    inventory: None where nothing was ever made.
    """
    rows = inventory.vms() if inventory is not None else []
    shared = Counter(row.name for row in rows)
    hosts = [host for row in rows if (host := _host(row, paths, alone=shared[row.name] == 1)) is not None]
    return ssh_config.text(hosts)


def keep(paths: Paths, inventory: Inventory, *, wanted: bool) -> None:
    """Makes the file, or removes it and with it the wish to have it kept. For the writer. Raises BangerError."""
    _write(paths, inventory, lambda: wanted)


def refresh(paths: Paths, inventory: Inventory) -> None:
    """Brings the file up to date if it is there. Raises BangerError."""
    if paths.ssh_config.exists():
        _write(paths, inventory, paths.ssh_config.exists)


def _write(paths: Paths, inventory: Inventory, wanted: Callable[[], bool]) -> None:
    path = paths.ssh_config
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        # All is decided inside: of two that write, the later has seen more.
        with exclusive(path.with_name(".config.lock")):
            if not wanted():
                path.unlink(missing_ok=True)
                return
            text = render(paths, inventory).encode()
            if not path.exists() or path.read_bytes() != text:
                write_atomic(path, text, mode=0o600)
    except OSError as problem:
        raise BangerError(
            f"cannot write {path}: {problem.strerror}",
            hint=f"df -h {path.parent}",
            error_class=ErrorClass.RETRYABLE,
        ) from problem


def _host(row: VmRow, paths: Paths, *, alone: bool) -> ssh_config.Host | None:
    where = _endpoint(row)
    if where is None:
        return None
    place = paths.vm(row.environment, row.name)
    full = f"{row.name}.{row.environment}.{DOMAIN}"
    return ssh_config.Host(
        names=(full, f"{row.name}.{DOMAIN}") if alone else (full,),
        address=where[0],
        port=where[1],
        user=row.spec.user,
        key=paths.client_key,
        known_hosts=place.known_hosts,
        alias=host_alias(row.id),
        shared=place.ssh_shared,
    )


def _endpoint(row: VmRow) -> tuple[str, int] | None:
    """Where its ssh server is, by what it was started with last; None if it never was, or has no network."""
    network = row.booted.get("network", row.spec.network)
    if network == NO_NETWORK:
        return None
    if network == USER_NETWORK:
        return ("127.0.0.1", row.forwards["22"]) if "22" in row.forwards else None
    told = row.booted.get("address")
    address = IPv4Address(told) if told else row.address
    return (str(address), 22) if address is not None else None
