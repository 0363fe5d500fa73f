"""The config disk: all that a guest is told, as plain tar archives on a disk of its own.

The initramfs unpacks it over /run, so what stands in `_files` is what the guest sees there. Each value is a file of
its own that the init reads and never evaluates. The disk holds the guest's private host key: its mode is 0600, and
nothing of it is on the kernel's command line, which everybody may read in /proc.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path, PurePosixPath

from reconciler.drivers.guest import bundle, services, settings, units
from reconciler.drivers.guest.entrypoint import Entrypoint
from reconciler.drivers.guest.sources import Entry
from reconciler.lib import atomic
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.inside import Variable

SERIAL_LIMIT = 20
"""A virtio-blk serial has at most so many bytes (virtio 1.2, 5.2.6, VIRTIO_BLK_T_GET_ID); the rest is cut off."""

_PAD = 4096
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_SERIAL = re.compile(rf"[a-z0-9-]{{1,{SERIAL_LIMIT}}}")

# As many commands at once as one likes: by one shared connection, which may have ten by default, or by one each, of which
# sshd begins to drop some when ten are not authenticated yet. Only the host and its networks reach the guest.
_SSHD = """\
HostKey /run/banger/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /run/banger/authorized_keys
MaxSessions 256
MaxStartups 256
UseDNS no
Include /run/banger/sshd-env.conf
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What one guest is told at each start. Raises BangerError for what no guest could use.

    Parameters
    ----------
    hostname: RFC 1123, lower case, at most 64 characters (hostname(7)).
    environment: the name of the VM's environment.
    machine_id: 32 hex digits (machine-id(5)); written at the first boot only.
    mac: of the interface to configure, or None for a guest without network.
    address, gateway: static; None leaves the interface up without an address, or without a default route.
    address6, gateway6: likewise, besides.
    nameservers, search: for resolv.conf(5).
    mtu: bytes.
    authorized_keys: lines of authorized_keys, valid for every user of the guest.
    host_key, host_key_public: the two halves of the guest's ed25519 host key.
    volumes: serial of the disk, and absolute mount path in the guest; mounted in this order.
    entrypoint: what the image is for.
    files: what the guest is to have besides; not unpacked into memory, but to their places.
    env: what every program of the guest is to have in its environment.
    """

    hostname: str
    environment: str
    machine_id: str
    mac: str | None = None
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    address6: IPv6Interface | None = None
    gateway6: IPv6Address | None = None
    nameservers: tuple[IPv4Address, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 1500
    authorized_keys: tuple[str, ...]
    host_key: str
    host_key_public: str
    volumes: tuple[tuple[str, str], ...] = ()
    entrypoint: Entrypoint = field(default_factory=Entrypoint)
    files: tuple[Entry, ...] = ()
    env: tuple[Variable, ...] = ()

    def __post_init__(self) -> None:
        _check(len(self.hostname) <= 64 and _HOSTNAME.fullmatch(self.hostname), "hostname", self.hostname)
        _check(_one_line(self.environment), "environment", self.environment)
        _check(_MACHINE_ID.fullmatch(self.machine_id), "machine id", self.machine_id)
        _check(self.mac is None or _MAC.fullmatch(self.mac), "MAC address", self.mac)
        # RFC 791: every host takes 68 bytes. The upper bound is the kernel's, for IP over Ethernet.
        _check(68 <= self.mtu <= 65535, "MTU", self.mtu)
        for name in self.search:
            _check(_HOSTNAME.fullmatch(name), "search domain", name)
        for line in self.authorized_keys:
            _check(_one_line(line), "authorized key", line)
        _check(_one_line(self.host_key_public), "public host key", self.host_key_public)
        for serial, mount in self.volumes:
            _check(_SERIAL.fullmatch(serial), "volume serial", serial)
            _check(_mountable(mount), f"mount path of {serial}", mount)


def volume_serial(name: str) -> str:
    """The serial of a volume's disk: `vol-` and its name, shortened to what virtio-blk carries, and still unique."""
    serial = f"vol-{name}"
    if len(serial) <= SERIAL_LIMIT:
        return serial
    return f"{serial[:11]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write(path: Path, config: GuestConfig) -> None:
    """Writes the config disk of a guest, in one step, with mode 0600. The same config gives the same bytes.

    Raises BangerError if the file cannot be written.
    """
    data = _disk(config)
    try:
        atomic.write_atomic(path, data, mode=0o600)
    except OSError as problem:
        raise BangerError(
            f"cannot write the config disk {path}: {problem.strerror}",
            hint=f"df -h {path.parent}",
            error_class=ErrorClass.RETRYABLE,
        ) from problem


def _disk(config: GuestConfig) -> bytes:
    """The archive for /run and, in a block of its own, that of the files: both end as tar(5) has it, so the first one
    is unpacked without the second one, which may be larger than the guest's memory."""
    head = _padded(_archive(config, 0))
    return _padded(_archive(config, len(head) // _PAD)) + _padded(bundle.archive(config.files))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _PAD)


def _archive(config: GuestConfig, offset: int) -> bytes:
    """What is unpacked over /run. `offset` is where the files begin, in blocks: a number more makes it no longer."""
    texts = {**dict(_files(config)), **units.files(), **services.files(config.entrypoint)}
    files = {name: (text.encode(), mode) for name, (text, mode) in texts.items()}
    files[bundle.SCRIPT] = (bundle.script().encode(), 0o644)
    files["banger/config/files"] = (f"{offset} {len(config.files)}\n".encode(), 0o644)
    links = {**units.links(), **services.links(config.entrypoint)}
    folders = {str(parent) for name in (*files, *links) for parent in PurePosixPath(name).parents} - {"."}
    buffer = io.BytesIO()
    # ustar: what busybox reads without extensions. All names here are ours, and short.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(folders):
            tar.addfile(_member(name, tarfile.DIRTYPE, 0o755))
        for name, (content, mode) in files.items():
            member = _member(name, tarfile.REGTYPE, mode)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = _member(name, tarfile.SYMTYPE, 0o777)
            member.linkname = target
            tar.addfile(member)
    return buffer.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = mode
    return member


def _files(config: GuestConfig) -> Iterator[tuple[str, tuple[str, int]]]:
    """Path below /run, to content and mode."""
    values = {
        "hostname": config.hostname,
        "environment": config.environment,
        "mac": config.mac,
        "mtu": config.mtu,
        "address": config.address,
        "gateway": config.gateway,
        "address6": config.address6,
        "gateway6": config.gateway6,
    }
    for name, value in values.items():
        if value is not None:
            yield f"banger/config/{name}", (f"{value}\n", 0o644)
    # The path starts with a slash and the serial has none, so the first slash divides them.
    yield "banger/config/volumes", (_lines(f"{serial}{mount}" for serial, mount in config.volumes), 0o644)

    # Copied into the image's /etc at the first boot.
    yield "banger/etc/hostname", (f"{config.hostname}\n", 0o644)
    yield "banger/etc/hosts", (_hosts(config), 0o644)
    yield "banger/etc/machine-id", (f"{config.machine_id}\n", 0o444)

    yield "banger/resolv.conf", (_resolv_conf(config), 0o644)
    variables = settings.pairs(config.env)
    yield "banger/env", (settings.shell(variables), 0o644)
    yield settings.MANAGER, (settings.manager(variables), 0o644)
    yield "banger/sshd-env.conf", (settings.sshd(variables), 0o644)
    yield "banger/sshd.conf", (_SSHD, 0o644)
    # sshd reads it as the user who logs in.
    yield "banger/authorized_keys", (_lines(config.authorized_keys), 0o644)
    yield "banger/ssh_host_ed25519_key", (config.host_key.rstrip("\n") + "\n", 0o600)
    yield "banger/ssh_host_ed25519_key.pub", (f"{config.host_key_public.strip()}\n", 0o644)


def _hosts(config: GuestConfig) -> str:
    # 127.0.1.1 is Debian's convention for the machine's own name: it resolves whatever the network does.
    return (
        "127.0.0.1 localhost\n"
        f"127.0.1.1 {config.hostname}\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "ff02::1 ip6-allnodes\n"
        "ff02::2 ip6-allrouters\n"
    )


def _resolv_conf(config: GuestConfig) -> str:
    search = [f"search {' '.join(config.search)}"] if config.search else []
    return _lines([*search, *(f"nameserver {server}" for server in config.nameservers)])


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _mountable(mount: str) -> bool:
    """Whether a path is absolute, normal, and not the root itself."""
    parts = mount.split("/")
    return mount.startswith("/") and mount.isprintable() and all(part not in ("", ".", "..") for part in parts[1:])


def _check(ok: object, what: str, value: object) -> None:
    if not ok:
        raise BangerError(f"a guest cannot have the {what} {value!r}")
