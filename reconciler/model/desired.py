"""What the file asks for, after defaults, counts and references are resolved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from reconciler.model.ids import identity

# Raised when the same inputs would be built into something else, so that old artifacts are not taken for new ones.
IMAGE_RECIPE = 1
KERNEL_RECIPE = 1

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel from a Debian suite."""

    name: str
    suite: str
    package: str

    @property
    def id(self) -> str:
        """Identity of the artifact; the name is a label only."""
        return identity("kernel", [KERNEL_RECIPE, self.suite, self.package])


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A root file system from a Debian suite; `packages` sorted and unique, `kernel` a name."""

    name: str
    suite: str
    packages: tuple[str, ...]
    kernel: str

    @property
    def id(self) -> str:
        """Identity of the artifact; neither the name nor the kernel is part of it."""
        return identity("image", [IMAGE_RECIPE, self.suite, list(self.packages)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A bridge of ours. The host's address on it is the first of `cidr`."""

    name: str
    cidr: IPv4Network
    mtu: int
    nameservers: tuple[IPv4Address, ...]

    @property
    def gateway(self) -> IPv4Address:
        return self.cidr.network_address + 1


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
    port: int | None = None
    timeout: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """`vm` is started before the VM that has this, and with `ready` has answered too."""

    vm: str
    on: DependsOn


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """One VM, resolved: `memory` and `disk` in bytes, image and kernel by name and by identity.

    `depends_on` is sorted by name; `ttl` is how many seconds a controller lets it run.
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
    ready: Ready = field(default_factory=Ready)
    protect: bool = False
    state: RunState = RunState.RUNNING
    restart: RestartPolicy = RestartPolicy.ALWAYS
    depends_on: tuple[Dependency, ...] = ()
    on_change: OnChange = OnChange.RESTART
    ttl: float | None = None

    @property
    def bridged(self) -> bool:
        return self.network not in (USER_NETWORK, NO_NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """How a controller keeps the environment. No VM is told of it.

    Parameters
    ----------
    resync: seconds after which it looks again though nothing happened.
    prune: whether what is not in the file goes to the trash.
    max_delete: how much of the VMs it removes without being told to, from 0 to 1.
    """

    resync: float = 300.0
    prune: bool = True
    max_delete: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """One environment, whole and valid. Mappings are keyed by name and in the file's order."""

    environment: str
    networks: Mapping[str, Network] = field(default_factory=dict)
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    vms: Mapping[str, Vm] = field(default_factory=dict)
    controller: Controller = field(default_factory=Controller)
