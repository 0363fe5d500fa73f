"""The contract between the command line and whatever does the work.

Only frozen values of the model cross it, so that it can be carried over a socket as well. The file is long because a
contract is read in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # For the types only: `ps` is quick because it does not load what plans are made of.
    from reconciler.model.desired import DesiredState
    from reconciler.model.events import Event
    from reconciler.model.outcome import Outcome
    from reconciler.model.plan import Plan, Step
    from reconciler.model.retention import Verdict
    from reconciler.model.status import ObjectStatus
    from reconciler.model.usage import VmUsage
    from reconciler.model.vm import Workspace


class VmVerb(StrEnum):
    """What can be asked of one VM, beside the file."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    KILL = "kill"


class WaitFor(StrEnum):
    """What a VM is waited for to be."""

    READY = "ready"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRef:
    """A VM by its full name."""

    environment: str
    name: str

    def __str__(self) -> str:
        return f"{self.environment}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a desired state came from. `digest` is the SHA-256 of the file's bytes, in hex."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """How far an apply may go, and how long it waits.

    expect: the fingerprint of a saved plan; anything else that would be planned now is refused.
    wait: whether to wait until the VMs are ready; timeout: seconds, None for each VM's own `ready.timeout`.
    parallel: how many actions run at once.
    operation: what the journal, the log and the helper's audit lines call this request; empty: the service makes one.
    """

    allow_recreate: bool = False
    expect: str | None = None
    wait: bool = True
    timeout: float | None = None
    parallel: int = 8
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What an apply did. `plan` is the first pass's; `not_ready` the VMs that were not ready in time."""

    plan: Plan
    outcomes: tuple[Outcome, ...] = ()
    not_ready: tuple[ObjectStatus, ...] = ()
    approved: bool = True

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.result.unsuccessful)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashEntry:
    """A VM in the trash. `trashed_at` in seconds since the epoch, `size` in bytes on disk."""

    entry: str
    environment: str
    name: str
    trashed_at: float
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheView:
    """The cache and the trash with what a policy would do now: a verdict on every entry.

    Parameters
    ----------
    folder: where the cache lies.
    used: bytes that it takes, without the trash; free, total: of its file system.
    limit: bytes that the policy lets it take, None for any; pressed: whether it is above that, and stays so.
    policy: whether there is one.
    """

    folder: Path
    verdicts: tuple[Verdict, ...]
    used: int
    free: int
    total: int
    limit: int | None = None
    pressed: bool = False
    policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedImage:
    """An image of the cache. `names` is what files call it, as `environment/name`; `digest` is of container images.

    `size` in bytes on disk, `used_at` in seconds since the epoch; `used_by` has VMs, as `environment/name`, and `trash/entry`.
    `manifest` is its `image.json`, empty if that cannot be read.
    """

    id: str
    names: tuple[str, ...]
    source: str
    digest: str
    size: int
    used_by: tuple[str, ...]
    used_at: float
    pinned: bool
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What was removed from the blobs, or would be. `size` in bytes on disk."""

    folder: Path
    blobs: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """An image that was made of a VM's disk: its file, and the kernel by which the VM boots. `size` in bytes."""

    path: Path
    sha256: str
    size: int
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """A file that a controller watches.

    environment: what it describes, None while that was never known; generation: of that environment, 0 for none.
    problem: why its content is not acted upon, with `file:line:column`; None if it is.
    since: when that became so, in seconds since the epoch.
    """

    path: Path
    environment: str | None
    problem: str | None
    generation: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """Who answers. `since` is when it began, in seconds since the epoch; `controller` whether it keeps watch."""

    version: str
    pid: int
    state: Path
    controller: bool
    since: float
    sources: tuple[SourceInfo, ...] = ()


class Channel(StrEnum):
    """What leads into a guest."""

    SSH = "ssh"
    AGENT = "agent"
    """The VMM's own line to the guest's agent: without a network, without a terminal, as root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshOptions:
    """What is asked of a connection beyond getting in.

    Parameters
    ----------
    user: who to be there; None for the VM's `user`.
    lend_agent: whether programs in the guest may use the caller's ssh agent.
    forwards: `-L`, `-R`, `-D` with their values, word by word.
    """

    user: str | None = None
    lend_agent: bool = False
    forwards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WayIn:
    """How commands are run in a VM.

    Parameters
    ----------
    user: who runs them there.
    argv: of ssh, up to the command, which is one word more; empty over the agent.
    master: of ssh, makes the connection that `argv` joins; empty if there can be none.
    control: where that connection listens.
    entry: where `argv` may be written down while that connection stands, for who comes next; None if it is not usual.
    workspace: the repository that the VM has a copy of, if its file gives it one.
    root, run: the two folders of the VM.
    """

    channel: Channel
    user: str
    root: Path
    run: Path
    argv: tuple[str, ...] = ()
    master: tuple[str, ...] = ()
    control: Path | None = None
    entry: Path | None = None
    workspace: Workspace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SshConfig:
    """What OpenSSH's own programs are to know of the VMs.

    path: the file that is kept up to date for them; kept: whether it is there. text: what it should say.
    """

    path: Path
    text: str
    kept: bool


class Reporter(Protocol):
    """Who is told while work goes on. Calls come from worker threads, one at a time."""

    def started(self, step: Step) -> None: ...

    def progress(self, step: Step, fraction: float | None, message: str) -> None: ...

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        """An attempt failed; the next one is `delay` seconds away."""

    def finished(self, step: Step, outcome: Outcome) -> None: ...

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        """The states of the VMs that are being waited for; called whenever one changes."""

    def note(self, message: str) -> None:
        """Something that the user should know, in a sentence."""


Approve = Callable[["Plan"], bool]
"""Asks the user about a plan before anything is done; False ends the operation with nothing done."""


class Service(Protocol):
    """Everything the command line can ask for.

    Every method may raise BangerError: UsageError for an object that does not exist, NotReadyError where it
    waits. Reading methods never create a file, not even an empty database.
    """

    def plan(self, desired: DesiredState, options: ApplyOptions) -> Plan:
        """What an apply would do now. Changes nothing."""

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        """Converges the host to `desired`. A failing object delays only what depends on it."""

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        """Removes an environment; its VMs and volumes go to the trash. Refused while one VM is protected."""

    def environments(self) -> list[str]:
        """The names of all environments of this state directory, sorted."""

    def status(self, environment: str | None) -> list[ObjectStatus]:
        """Every object of one environment, or of all: networks, images, kernels, VMs, volumes. Observed now.

        An environment that was never applied, or is deleted, has none.
        """

    def vms(self, environment: str | None) -> list[ObjectStatus]:
        """The VMs only, observed without probing the guests for longer than 0.3 s in all: for `ps`."""

    def usage(self, environment: str | None) -> list[VmUsage]:
        """What the VMs of one environment, or of all, use of the host at this moment."""

    def networks(self, environment: str | None) -> list[ObjectStatus]:
        """The networks only, observed now, without probing guests: for `network list`."""

    def resolve(self, name: str, environment: str | None) -> VmRef:
        """`dev` or `demo/dev` to the one VM that is meant. UsageError names the near ones, or all that match."""

    def wait(
        self,
        environment: str,
        names: Sequence[str],
        timeout: float | None,
        reporter: Reporter,
        condition: WaitFor = WaitFor.READY,
    ) -> None:
        """Waits until the named VMs are as `condition` says. NotReadyError says which are not.

        None named: all that should run, for READY; all that there are, otherwise.
        """

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        """Starts, stops, restarts or kills one VM; with `options.wait` until it is ready."""

    def trash(self) -> list[TrashEntry]:
        """What is in the trash, newest first."""

    def restore(
        self, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
    ) -> VmRef:
        """Brings the newest (or the named) trash entry of a VM back, with its volumes, and starts it if it should run."""

    def discard(self, entry: str) -> int:
        """Deletes a trash entry for good; returns the bytes that came free. UsageError if it is not there."""

    def cache(self, desired: DesiredState | None) -> CacheView:
        """What lies in the cache and in the trash, and what the policy of `desired` would do. Changes nothing."""

    def prune_cache(
        self, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        """Evicts what the policy of `desired` lets go now, and touches nothing else."""

    def clear_blobs(self, dry_run: bool) -> Cleared:
        """Empties the cache of blobs that came from registries; no image needs them. With `dry_run` only counts."""

    def commit(self, ref: VmRef, image: str, options: ApplyOptions, reporter: Reporter) -> Committed:
        """Makes an image of a stopped VM's disk, kept under the name `image` in the state directory."""

    def images(self) -> list[CachedImage]:
        """Every image of the cache, those that files name first."""

    def remove_image(self, identity: str) -> int:
        """Removes an image of the cache; returns the bytes that came free. UsageError while something is made of it."""

    def pin_image(self, identity: str, pinned: bool) -> bool:
        """Has an image kept whatever a policy says, or no longer. False: it was so already."""

    def lock_images(self, desired: DesiredState) -> Mapping[str, str]:
        """What each tag means now, by reference: its registry is asked, whatever is remembered or locked."""

    def ssh_argv(
        self, ref: VmRef, command: Sequence[str] | None, tty: bool | None, options: SshOptions | None = None
    ) -> list[str]:
        """The ssh command line that enters a running VM, host key pinned. `command` arrives in the guest word by word."""

    def way_in(self, ref: VmRef, user: str | None) -> WayIn:
        """How commands are run in a running VM: by ssh where it has a network, else by its agent."""

    def ssh_config(self) -> SshConfig:
        """All VMs of the state directory as hosts for OpenSSH's own programs."""

    def keep_ssh_config(self, wanted: bool) -> None:
        """Writes that down in its file, and keeps the file up to date from now on; or removes the file."""

    def console_log(self, ref: VmRef) -> Path:
        """The file that the VM's serial console is written to."""

    def events(self, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
        """What happened, oldest first, in one environment or in all.

        after: the id of an event; those that came later are given. None: the newest 50.
        follow: goes on with what happens from now on, until the iterator is closed.
        """

    def approve(self, digest: str) -> str:
        """Lets the removals go that are held under `digest`, and returns their environment.

        UsageError if nothing waits for that digest; it names what does.
        """

    def pause(self, environment: str, vm: str | None) -> bool:
        """Has the controller leave a VM alone, or all of an environment. False: it did so already."""

    def resume(self, environment: str, vm: str | None) -> bool:
        """The end of a pause. False: there was none."""

    def info(self) -> ServiceInfo:
        """Who answers, and from which files."""

    def close(self) -> None: ...
