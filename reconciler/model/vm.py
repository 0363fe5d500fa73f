"""VMs and networks as a file describes them. Pure.

Apart from the rest of a desired state: what only looks at VMs is quick because it does not load what images are made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from reconciler.model.inside import GuestFile, ProvisionStep, Secret, Variable

DOMAIN = "vm"
"""Below it every VM has a name: `web.demo.vm`."""

PREFIX6 = 64
"""Of every `cidr6`, in bits."""

USER_NETWORK = "user"
NO_NETWORK = "none"


class Backend(StrEnum):
    """Which VMM runs the VM."""

    AUTO = "auto"
    QEMU = "qemu"


class RunState(StrEnum):
    """What the file wants a VM to do."""

    RUNNING = "running"
    STOPPED = "stopped"


class RestartPolicy(StrEnum):
    """Whether a controller starts a VM again that ended without being asked to."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"

    @property
    def asks_why(self) -> bool:
        """Whether it matters how the VM ended."""
        return self is not RestartPolicy.ALWAYS


class DependsOn(StrEnum):
    """What a VM waits for before it is started: that another one runs, or that it was seen ready."""

    READY = "ready"
    STARTED = "started"


class OnChange(StrEnum):
    """When an edit that a running VM does not notice takes effect."""

    RESTART = "restart"
    NEXT_START = "next-start"


class Protocol(StrEnum):
    """What a rule about ports is about. A port is published of `tcp` or `udp`; an egress rule may be for any protocol."""

    ANY = "any"
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Egress:
    """Where the VMs of a network may begin connections to.

    Parameters
    ----------
    to: a network in canonical form, or a DNS name in lower case, or `*.name` for all names below one.
    first, last: the range of destination ports, both inclusive; both 0 for all of them, which `any` always has.
    """

    to: str
    protocol: Protocol = Protocol.ANY
    first: int = 0
    last: int = 0

    @property
    def named(self) -> bool:
        return "/" not in self.to

    def __str__(self) -> str:
        """`deb.debian.org:443`, `10.0.0.0/8`, `9.9.9.9/32:53/udp`."""
        if self.protocol is Protocol.ANY:
            return self.to
        ports = "*" if not self.first else f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        to = f"[{self.to}]" if ":" in self.to else self.to
        return f"{to}:{ports}" + ("" if self.protocol is Protocol.TCP else f"/{self.protocol}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A bridge of ours. The host's addresses on it are the first of `cidr` and, where there is one, of `cidr6`.

    Parameters
    ----------
    cidr6: a unique local /64 (RFC 4193); each VM's address there follows from its IPv4 address.
    nameservers: what guests are told to ask; None for what banger thinks right.
    egress: where VMs may begin connections to, sorted; None for everywhere.
    """

    name: str
    cidr: IPv4Network
    mtu: int
    nameservers: tuple[IPv4Address, ...] | None = None
    cidr6: IPv6Network | None = None
    nat: bool = True
    dns: bool = True
    isolated: bool = False
    egress: tuple[Egress, ...] | None = None

    @property
    def gateway(self) -> IPv4Address:
        return self.cidr.network_address + 1

    @property
    def gateway6(self) -> IPv6Address | None:
        return self.cidr6.network_address + 1 if self.cidr6 is not None else None

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The IPv6 address of who has `address`: as far from the start of its network."""
        if self.cidr6 is None:
            return None
        return self.cidr6.network_address + (int(address) - int(self.cidr.network_address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A disk that outlives its VM. `size` in bytes, `mount` an absolute path in the guest."""

    name: str
    size: int
    mount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When a VM counts as ready. `timeout` in seconds from its start."""

    ssh: bool = True
    agent: bool = False
    port: int | None = None
    timeout: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """`vm` is started before the VM that has this, and with `ready` has answered too."""

    vm: str
    on: DependsOn


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Publication:
    """A port of a VM that the host answers on. `host_address` is one of the host's, or empty for all of them."""

    host_address: str
    host_port: int
    protocol: Protocol
    guest_port: int

    def __str__(self) -> str:
        """As the file has it."""
        host = f"[{self.host_address}]" if ":" in self.host_address else self.host_address
        suffix = "" if self.protocol is Protocol.TCP else f"/{self.protocol}"
        return f"{host}:{self.host_port}:{self.guest_port}{suffix}".lstrip(":")

    def clashes(self, other: Publication) -> bool:
        """Whether both would have the same port of the host."""
        if (self.host_port, self.protocol) != (other.host_port, other.protocol):
            return False
        return self.host_address == other.host_address or not (self.host_address and other.host_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A git repository of the host that a VM gets a copy of.

    Parameters
    ----------
    host: the folder of the repository, absolute. guest: where its copy goes, absolute.
    untracked: whether files come along that git does not track, and does not ignore.
    """

    host: str
    guest: str
    untracked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """One VM, resolved: `memory` and `disk` in bytes, image and kernel by name and by identity.

    `image_digest` is that of an image of a registry, for people; it is part of the identity.
    `depends_on` is sorted by name, `ports` as publications compare, `env` and `secrets` by name; `ttl` is how many seconds
    a controller lets it run. Of `files`, a later one wins where two are for one path.
    """

    name: str
    image: str
    image_id: str
    kernel: str
    kernel_id: str
    cpus: int
    memory: int
    disk: int
    network: str
    address: IPv4Address | None = None
    backend: Backend = Backend.AUTO
    volumes: tuple[Volume, ...] = ()
    ports: tuple[Publication, ...] = ()
    files: tuple[GuestFile, ...] = ()
    env: tuple[Variable, ...] = ()
    secrets: tuple[Secret, ...] = ()
    provision: tuple[ProvisionStep, ...] = ()
    ready: Ready = field(default_factory=Ready)
    protect: bool = False
    state: RunState = RunState.RUNNING
    restart: RestartPolicy = RestartPolicy.ALWAYS
    depends_on: tuple[Dependency, ...] = ()
    on_change: OnChange = OnChange.RESTART
    ttl: float | None = None
    user: str = "root"
    """Who `banger ssh` and `banger exec` are in the guest."""
    workspace: Workspace | None = None
    image_digest: str = ""

    @property
    def bridged(self) -> bool:
        return self.network not in (USER_NETWORK, NO_NETWORK)

    @property
    def guest_files(self) -> tuple[GuestFile, ...]:
        """What is put at paths of the guest: the files, and the way to each secret that has a path."""
        return (*self.files, *(link for secret in self.secrets if (link := secret.link) is not None))
