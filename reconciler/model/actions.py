"""The closed union of everything banger can do to a host; long because it is one.

Each action is a frozen value that names its object and its reason, describes itself in a sentence and in
JSON, and can be applied twice without harm. Pure: what an action means is in `execute`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, ClassVar

from reconciler.lib.units import format_size, human_size
from reconciler.model.artifacts import GuestTools, Image, Kernel
from reconciler.model.changes import ChangeClass
from reconciler.model.codec import from_json, to_json
from reconciler.model.nouns import Noun
from reconciler.model.retention import EntryKind, Eviction
from reconciler.model.rules import NetworkRules
from reconciler.model.vm import Network, Publication, Vm, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Action:
    noun: ClassVar[Noun]
    verb: ClassVar[str]
    recurs: ClassVar[bool] = False
    """Whether it is done again and again without anybody undoing it."""
    name: str
    reason: str

    @property
    def id(self) -> str:
        """Unique within a plan: `start vm/dev`."""
        return f"{self.verb} {self.object}"

    @property
    def object(self) -> str:
        return f"{self.noun}/{self.name}"

    @property
    def change_class(self) -> ChangeClass:
        """What the user should know about its price."""
        return ChangeClass.LIVE

    def describe(self) -> str:
        """One sentence, lower case, without a full stop."""
        return f"{self.verb} {self.noun} {self.name}"

    def to_json(self) -> dict[str, Any]:
        fields = to_json(self)
        return {
            "action": type(self).__name__,
            "id": self.id,
            "description": self.describe(),
            "class": self.change_class.value,
            **fields,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchKernel(_Action):
    noun, verb = Noun.KERNEL, "fetch"
    kernel: Kernel

    def describe(self) -> str:
        return f"fetch kernel {self.name}: {self.kernel.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTools(_Action):
    noun, verb = Noun.CACHE, "fetch"
    tools: GuestTools

    def describe(self) -> str:
        return f"fetch {self.name}: {self.tools}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildImage(_Action):
    noun, verb = Noun.IMAGE, "build"
    image: Image

    def describe(self) -> str:
        return f"build image {self.name}: {self.image.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureBridge(_Action):
    noun, verb = Noun.NETWORK, "ensure"
    network: Network

    def describe(self) -> str:
        also = f" and {self.network.cidr6}" if self.network.cidr6 is not None else ""
        return f"ensure bridge of network {self.name}: {self.network.cidr}{also}, mtu {self.network.mtu}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureRules(_Action):
    """Replaces the packet filter's rules of a network, in one step."""

    noun, verb = Noun.NETWORK, "filter"
    network: Network
    rules: NetworkRules

    def describe(self) -> str:
        rules = self.rules
        words = ["nat" if rules.nat else "no nat"]
        words += ["isolated"] if rules.isolated else []
        words += [f"{len(rules.egress)} egress rule(s)"] if rules.restricted else []
        words += [f"{len(rules.vms)} vm(s)"]
        words += [f"{len(rules.ports)} published port(s)"] if rules.ports else []
        return f"filter network {self.name}: {', '.join(words)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteBridge(_Action):
    """Its rules go with it."""

    noun, verb = Noun.NETWORK, "delete"

    def describe(self) -> str:
        return f"delete bridge of network {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureTap(_Action):
    noun, verb = Noun.VM, "connect"
    network: str
    mtu: int

    def describe(self) -> str:
        return f"connect vm {self.name} to network {self.network} by a tap"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTap(_Action):
    noun, verb = Noun.VM, "disconnect"

    def describe(self) -> str:
        return f"remove the tap of vm {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVm(_Action):
    noun, verb = Noun.VM, "create"
    vm: Vm
    address: IPv4Address | None

    def describe(self) -> str:
        vm = self.vm
        where = f"{vm.network} {self.address}" if self.address else vm.network
        return f"create vm {self.name}: image {vm.image}, disk {format_size(vm.disk)}, network {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateVm(_Action):
    """Records what the file now says of a VM: effective at once for metadata, else with the next start."""

    noun, verb = Noun.VM, "record"
    vm: Vm
    address: IPv4Address | None
    release: bool = False
    """It is to run after all: that it was to be stopped is forgotten."""

    @property
    def change_class(self) -> ChangeClass:
        return ChangeClass.NONE

    def describe(self) -> str:
        return f"record the new settings of vm {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartVm(_Action):
    noun, verb = Noun.VM, "start"
    vm: Vm
    network: Network | None
    address: IPv4Address | None

    def describe(self) -> str:
        return f"start vm {self.name}: {self.vm.cpus} cpu(s), {format_size(self.vm.memory)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopVm(_Action):
    noun, verb = Noun.VM, "stop"
    restart: bool = False
    kill: bool = False
    """At once, without asking the guest: what was not synced is lost."""
    halt: str | None = None
    """Why it is to stay stopped, whatever the file says; stored with the intent."""

    @property
    def change_class(self) -> ChangeClass:
        return ChangeClass.RESTART if self.restart else ChangeClass.LIVE

    def describe(self) -> str:
        if self.kill:
            return f"kill vm {self.name}"
        return f"stop vm {self.name}" + (" to restart it" if self.restart else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPorts(_Action):
    """Of a VM that runs on a user-mode network, whose VMM itself answers on them."""

    noun, verb = Noun.VM, "publish"
    ports: tuple[Publication, ...]

    def describe(self) -> str:
        return f"publish {', '.join(map(str, self.ports)) or 'no port'} of vm {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureGuest(_Action):
    """Brings what the file asks for into a guest that runs, as soon as it can be entered. `timeout` in seconds for that."""

    noun, verb = Noun.VM, "configure"
    vm: Vm
    timeout: float

    def describe(self) -> str:
        return f"configure the guest of vm {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionVm(_Action):
    """Does the work in the guest that it has not done yet. `timeout` in seconds until it can be entered."""

    noun, verb = Noun.VM, "provision"
    vm: Vm
    timeout: float

    def describe(self) -> str:
        return f"provision vm {self.name}: {len(self.vm.provision)} step(s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReady(_Action):
    """Done when the guest was seen ready in its present boot. `timeout` in seconds from when it is begun."""

    noun, verb = Noun.VM, "await"
    timeout: float

    def describe(self) -> str:
        return f"wait until vm {self.name} is ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipWorkspace(_Action):
    """Gives a VM its copy of a repository for the first time. What was shipped once is left to `banger workspace`."""

    noun, verb = Noun.VM, "ship"
    workspace: Workspace

    def describe(self) -> str:
        return f"ship {self.workspace.host} to vm {self.name}: {self.workspace.guest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveRemoval(_Action):
    """Records that a person agreed to the removal of these VMs, so that what is left of it needs no second approval.

    `digest` is what was approved, `state` the desired state (`plan.guard.state_digest`) for which it holds.
    """

    noun, verb = Noun.ENVIRONMENT, "approve"
    vms: tuple[str, ...]
    digest: str
    state: str

    @property
    def change_class(self) -> ChangeClass:
        return ChangeClass.NONE

    def describe(self) -> str:
        return f"let go of {len(self.vms)} vm(s) of environment {self.name}, as approved"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashVm(_Action):
    noun, verb = Noun.VM, "trash"
    recreate: bool = False
    with_volumes: bool = False

    @property
    def change_class(self) -> ChangeClass:
        return ChangeClass.RECREATE if self.recreate else ChangeClass.LIVE

    def describe(self) -> str:
        what = " and its volumes" if self.with_volumes else ""
        return f"move vm {self.name}{what} to the trash" + (" to recreate it" if self.recreate else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreVm(_Action):
    noun, verb = Noun.VM, "restore"
    entry: str

    def describe(self) -> str:
        return f"restore vm {self.name} from trash entry {self.entry}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashVolumes(_Action):
    """Volumes whose VM is gone: they lasted for it to come back, and go when the environment goes."""

    noun, verb = Noun.VOLUME, "trash"

    def describe(self) -> str:
        return f"move the volumes of {self.name} to the trash"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillStray(_Action):
    noun, verb = Noun.VM, "kill"
    pid: int

    def describe(self) -> str:
        return f"kill process {self.pid}, a VMM of ours whose vm {self.name} no longer exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStaging(_Action):
    noun, verb = Noun.CACHE, "sweep"

    def describe(self) -> str:
        return f"remove {self.name}, left by a process that was killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictEntries(_Action):
    """Removes entries of the cache and of the trash, each if nothing needs it and nobody has used it since."""

    noun, verb, recurs = Noun.CACHE, "evict", True
    entries: tuple[Eviction, ...]

    @property
    def frees(self) -> int:
        """Bytes that come free."""
        return sum(entry.frees for entry in self.entries)

    @property
    def loses(self) -> bool:
        """Whether some of it is a user's data."""
        return any(not kind.made_again for kind in {entry.kind for entry in self.entries})

    def describe(self) -> str:
        count = Counter(entry.kind for entry in self.entries)
        what = ", ".join(f"{count[kind]} {_EVICTED.get(kind, kind.value)}(s)" for kind in EntryKind if count[kind])
        return f"evict {what} from the {self.name}: {human_size(self.frees)}"

    def to_json(self) -> dict[str, Any]:
        # Not field by field, as for the others: there may be a hundred thousand entries.
        return {
            "action": "EvictEntries",
            "id": self.id,
            "description": self.describe(),
            "class": self.change_class.value,
            "name": self.name,
            "reason": self.reason,
            "entries": [
                {
                    "kind": entry.kind.value,
                    "name": entry.name,
                    "rule": entry.rule,
                    "reason": entry.reason,
                    "frees": entry.frees,
                    "used_at": entry.used_at,
                }
                for entry in self.entries
            ],
        }


_EVICTED = {EntryKind.TRASH: "trash entry"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetEnvironment(_Action):
    noun, verb = Noun.ENVIRONMENT, "forget"

    def describe(self) -> str:
        return f"forget environment {self.name}"


Action = (
    FetchKernel
    | FetchTools
    | BuildImage
    | EnsureBridge
    | EnsureRules
    | DeleteBridge
    | EnsureTap
    | DeleteTap
    | CreateVm
    | UpdateVm
    | StartVm
    | StopVm
    | PublishPorts
    | ConfigureGuest
    | ProvisionVm
    | AwaitReady
    | ShipWorkspace
    | ApproveRemoval
    | TrashVm
    | RestoreVm
    | TrashVolumes
    | KillStray
    | SweepStaging
    | EvictEntries
    | ForgetEnvironment
)

_BY_NAME: dict[str, type[Any]] = {kind.__name__: kind for kind in Action.__args__}


def action_from_json(data: dict[str, Any]) -> Action:
    """The inverse of an action's `to_json`. ValueError for anything else."""
    kind = _BY_NAME.get(str(data.get("action")))
    if kind is None:
        raise ValueError(f"unknown action {data.get('action')!r}")
    derived = ("action", "id", "description", "class")
    action: Action = from_json(kind, {key: value for key, value in data.items() if key not in derived})
    return action
