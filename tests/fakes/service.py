"""A `Service` that remembers what it was asked for and answers what a test gave it. Long because a service can do much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.api.service import (
    ApplyOptions,
    ApplyResult,
    Approve,
    CachedImage,
    CacheView,
    Channel,
    Cleared,
    Committed,
    Reporter,
    ServiceInfo,
    Source,
    SshConfig,
    SshOptions,
    TrashEntry,
    VmRef,
    VmVerb,
    WaitFor,
    WayIn,
)
from reconciler.lib.errors import UsageError
from reconciler.model.actions import BuildImage, CreateVm, EvictEntries, StartVm, StopVm, TrashVm
from reconciler.model.artifacts import DebianImage, DebianKernel, Image, Kernel
from reconciler.model.desired import DesiredState
from reconciler.model.events import Event
from reconciler.model.nouns import Noun
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Held, Plan, Step
from reconciler.model.retention import Entry, EntryKind, Eviction, SharedFile, Verdict
from reconciler.model.status import Condition, ConditionType, ObjectStatus, State
from reconciler.model.usage import DiskUsage, Running, VmUsage
from reconciler.model.vm import Vm

IMAGE = Image(name="base", source=DebianImage(suite="bookworm", packages=("git",)), kernel="debian")
KERNEL = Kernel(name="debian", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))


def vm_spec(name: str = "dev") -> Vm:
    return Vm(
        name=name,
        image="base",
        image_id=IMAGE.id,
        kernel="debian",
        kernel_id=KERNEL.id,
        cpus=2,
        memory=512 << 20,
        disk=4 << 30,
        network="user",
    )


def desired(environment: str = "demo") -> DesiredState:
    vm = vm_spec()
    return DesiredState(environment=environment, kernels={"debian": KERNEL}, images={"base": IMAGE}, vms={vm.name: vm})


def vm_status(
    name: str = "dev", environment: str = "demo", state: State = State.READY, message: str = "", **more: Any
) -> ObjectStatus:
    ready = state is State.READY
    conditions = (Condition(type=ConditionType.READY, status=ready, reason="Probed", message=message),)
    return ObjectStatus(
        kind=Noun.VM,
        name=name,
        environment=environment,
        state=state,
        ready=ready,
        address=more.pop("address", "127.0.0.1"),
        conditions=conditions,
        details=more,
    )


def creation(environment: str = "demo") -> Plan:
    """A first apply: nothing is taken away."""
    vm = vm_spec()
    build = BuildImage(name="base", reason="not built yet", image=IMAGE)
    create = CreateVm(name="dev", reason="new in the file", vm=vm, address=None)
    start = StartVm(name="dev", reason="state: running", vm=vm, network=None, address=None)
    return Plan(
        environment=environment,
        steps=(Step(build), Step(create, needs=(build.id,)), Step(start, needs=(create.id,))),
    )


def restart(environment: str = "demo") -> Plan:
    """An edit of the memory."""
    reason = "memory: 512MiB → 1GiB (restart)"
    stop = StopVm(name="dev", reason=reason, restart=True)
    start = StartVm(name="dev", reason=reason, vm=vm_spec(), network=None, address=None)
    return Plan(environment=environment, steps=(Step(stop), Step(start, needs=(stop.id,))))


def removal(environment: str = "demo") -> Plan:
    trash = TrashVm(name="old", reason="no longer in the file; protect: false")
    return Plan(environment=environment, steps=(Step(trash),))


def eviction(kind: EntryKind = EntryKind.IMAGE) -> EvictEntries:
    entry = Eviction(
        kind=kind, name="0123", rule="cache.rules[0]", reason="not used for 60d", frees=1 << 20, used_at=1.5
    )
    return EvictEntries(name="cache", reason="cache.rules[0]: not used for 60d", entries=(entry,))


def held(environment: str = "demo") -> Plan:
    return Plan(
        environment=environment,
        held=(Held(object="vm/dev", reason="image: base → other (recreate)", release="banger apply --allow-recreate"),),
    )


def event(id: int, message: str = "start vm dev", environment: str = "demo", **more: Any) -> Event:
    given: dict[str, Any] = {
        "at": 1000.0 + id,
        "operation": "op1",
        "object": "vm/dev",
        "warning": False,
        "reason": "Started",
        **more,
    }
    return Event(id=id, environment=environment, message=message, **given)


CACHE = CacheView(
    folder=Path("/nonexistent/cache"),
    verdicts=(
        Verdict(
            Entry(EntryKind.IMAGE, IMAGE.id, 300 << 20, 1000.0, 2000.0), False, "needed", "environment demo has it"
        ),
        Verdict(
            Entry(EntryKind.BLOB, "ab" * 32, 0, 1000.0, 1000.0, (SharedFile("1:2", 5 << 20, 2, 1),)),
            True,
            "cache.rules[0]",
            "not used for 30d",
            5 << 20,
        ),
        Verdict(
            Entry(EntryKind.TRASH, "demo.old.0123", 4 << 20, 900.0, 900.0, environment="demo", protected=True),
            True,
            "cache.rules[1]",
            "not used for 7d",
            4 << 20,
        ),
    ),
    used=305 << 20,
    free=10 << 30,
    total=100 << 30,
    limit=40 << 30,
    policy=True,
)

COMMITTED = Committed(path=Path("/state/committed/gold-0.squashfs"), sha256="0" * 64, size=1 << 28, kernel="debian")
CLEARED = Cleared(folder=Path("/nonexistent/oci"), blobs=47, size=1288490189)
CACHED = CachedImage(
    id="0123456789abcdef",
    names=("demo/base", "other/base"),
    source="r.io/a/b:1",
    digest="sha256:" + "ab" * 32,
    size=300 << 20,
    used_by=("demo/dev", "demo/web-1", "demo/web-2", "demo/web-3"),
    used_at=1000.0,
    pinned=False,
    manifest={"layers": [{}, {}], "config": {"cmd": ["sh", "-c"], "user": ""}, "warnings": ["\x1b[1mbold"]},
)
UNUSED = CachedImage(
    id="fedcba9876543210",
    names=("demo/spare",),
    source="Debian bookworm",
    digest="",
    size=1 << 20,
    used_by=(),
    used_at=2000.0,
    pinned=True,
    manifest={},
)
INFO = ServiceInfo(version="0", pid=1, state=Path("/nonexistent/state"), controller=False, since=1000.0)


WAY = WayIn(
    channel=Channel.SSH,
    user="root",
    root=Path("/nonexistent/root"),
    run=Path("/nonexistent/run"),
    argv=("ssh", "-p", "2222", "--", "127.0.0.1"),
)


def vm_usage(
    name: str = "dev", environment: str = "demo", *, uptime: float | None = 100.0, cpu: float = 10.0
) -> VmUsage:
    """What a VM with a volume uses; with `uptime` None it does not run."""
    return VmUsage(
        environment=environment,
        name=name,
        cpus=2,
        memory=512 << 20,
        disks=(
            DiskUsage(name="root", allocated=100 << 20, size=4 << 30),
            DiskUsage(name="data", allocated=1 << 20, size=1 << 30),
        ),
        now=None if uptime is None else Running(uptime=uptime, cpu=cpu, resident=300 << 20, received=2048, sent=10),
    )


@dataclass
class FakeService:
    """Set the attributes that a test is about; `calls` holds every call as a tuple."""

    objects: list[ObjectStatus] = field(default_factory=lambda: [vm_status()])
    the_plan: Plan = field(default_factory=creation)
    result: ApplyResult | None = None
    error: BaseException | None = None
    trashed: list[TrashEntry] = field(default_factory=list)
    known: list[str] | None = None
    log: Path = Path("/nonexistent/console.log")
    argv: list[str] = field(default_factory=lambda: ["ssh", "-p", "2222", "root@127.0.0.1"])
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    closed: int = 0
    happened: list[Event] = field(default_factory=list)
    awaiting: dict[str, str] = field(default_factory=dict)
    """The environments whose removals wait, by the digest that lets them go."""
    paused: set[tuple[str, str | None]] = field(default_factory=set)
    the_info: ServiceInfo = INFO
    ssh_file: Path = Path("/nonexistent/state/ssh/config")
    way: WayIn = WAY
    ssh_text: str = "Host dev.demo.vm\n"
    the_cache: CacheView = CACHE
    the_cleared: Cleared = CLEARED
    the_committed: Committed = COMMITTED
    the_images: list[CachedImage] = field(default_factory=lambda: [CACHED, UNUSED])
    the_lock: dict[str, str] = field(default_factory=lambda: {"r.io/a/b:1": "sha256:" + "ab" * 32})
    changed: bool = True
    the_usage: list[list[VmUsage]] = field(default_factory=lambda: [[vm_usage()]])
    """What is measured first, second, and from then on."""
    measured: int = 0

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def plan(self, desired: DesiredState, options: ApplyOptions) -> Plan:
        self._called("plan", desired.environment, options)
        return self.the_plan

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        self._called("apply", desired.environment, source, options)
        return self._converge(reporter, approve)

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        self._called("delete", environment, options)
        return self._converge(reporter, approve)

    def _converge(self, reporter: Reporter, approve: Approve) -> ApplyResult:
        if self.the_plan.steps and not approve(self.the_plan):
            return ApplyResult(plan=self.the_plan, approved=False)
        outcomes = []
        for step in self.the_plan.steps:
            reporter.started(step)
            reporter.progress(step, 0.5, "half way")
            outcome = Outcome(step=step.id, object=step.action.object, result=Result.DONE, seconds=1.5)
            reporter.finished(step, outcome)
            outcomes.append(outcome)
        return self.result or ApplyResult(plan=self.the_plan, outcomes=tuple(outcomes))

    def environments(self) -> list[str]:
        return sorted({o.environment for o in self.objects}) if self.known is None else self.known

    def status(self, environment: str | None) -> list[ObjectStatus]:
        self._called("status", environment)
        return [o for o in self.objects if environment in (None, o.environment)]

    def vms(self, environment: str | None) -> list[ObjectStatus]:
        self._called("vms", environment)
        return [o for o in self.objects if o.kind is Noun.VM and environment in (None, o.environment)]

    def usage(self, environment: str | None) -> list[VmUsage]:
        self._called("usage", environment)
        found = self.the_usage[min(self.measured, len(self.the_usage) - 1)]
        self.measured += 1
        return found

    def networks(self, environment: str | None) -> list[ObjectStatus]:
        self._called("networks", environment)
        return [o for o in self.objects if o.kind is Noun.NETWORK and environment in (None, o.environment)]

    def resolve(self, name: str, environment: str | None) -> VmRef:
        self._called("resolve", name, environment)
        if "/" in name:
            environment, _, name = name.partition("/")
        found = [o for o in self.objects if o.name == name and environment in (None, o.environment)]
        if len(found) != 1:
            raise UsageError(f"there is no vm {name}" if not found else f"vm {name} is in several environments")
        return VmRef(environment=found[0].environment, name=name)

    def wait(
        self,
        environment: str,
        names: Sequence[str],
        timeout: float | None,
        reporter: Reporter,
        condition: WaitFor = WaitFor.READY,
    ) -> None:
        more = () if condition is WaitFor.READY else (condition,)
        self._called("wait", environment, tuple(names), timeout, *more)
        reporter.waiting([vm for vm in self.objects if vm.environment == environment])

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        self._called("vm", verb, str(ref), options)

    def trash(self) -> list[TrashEntry]:
        return self.trashed

    def discard(self, entry: str) -> int:
        self._called("discard", entry)
        self.trashed = [found for found in self.trashed if found.entry != entry]
        return 1 << 20

    def restore(
        self, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
    ) -> VmRef:
        self._called("restore", name, environment, entry, options)
        return VmRef(environment=environment or "demo", name=name)

    def cache(self, desired: DesiredState | None) -> CacheView:
        self._called("cache", None if desired is None else desired.environment)
        return self.the_cache

    def prune_cache(
        self, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        self._called("prune_cache", desired.environment, options)
        return self._converge(reporter, approve)

    def clear_blobs(self, dry_run: bool) -> Cleared:
        self._called("clear_blobs", dry_run)
        return self.the_cleared

    def commit(self, ref: VmRef, image: str, options: ApplyOptions, reporter: Reporter) -> Committed:
        self._called("commit", str(ref), image, options)
        reporter.note("packing")
        return self.the_committed

    def images(self) -> list[CachedImage]:
        self._called("images")
        return self.the_images

    def remove_image(self, identity: str) -> int:
        self._called("remove_image", identity)
        return 1 << 20

    def pin_image(self, identity: str, pinned: bool) -> bool:
        self._called("pin_image", identity, pinned)
        return self.changed

    def lock_images(self, desired: DesiredState) -> Mapping[str, str]:
        self._called("lock_images", desired.environment)
        return self.the_lock

    def ssh_argv(
        self, ref: VmRef, command: Sequence[str] | None, tty: bool | None, options: SshOptions | None = None
    ) -> list[str]:
        more = () if options in (None, SshOptions()) else (options,)
        self._called("ssh_argv", str(ref), None if command is None else list(command), tty, *more)
        return [*self.argv, *(command or ())]

    def way_in(self, ref: VmRef, user: str | None) -> WayIn:
        self._called("way_in", str(ref), user)
        return self.way

    def ssh_config(self) -> SshConfig:
        self._called("ssh_config")
        return SshConfig(path=self.ssh_file, text=self.ssh_text, kept=self.ssh_file.exists())

    def keep_ssh_config(self, wanted: bool) -> None:
        self._called("keep_ssh_config", wanted)
        if wanted and self.ssh_file.parent.is_dir():
            self.ssh_file.write_text(self.ssh_text)
        else:
            self.ssh_file.unlink(missing_ok=True)

    def console_log(self, ref: VmRef) -> Path:
        return self.log

    def events(self, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
        self._called("events", environment, after, follow)
        found = [e for e in self.happened if environment in (None, e.environment)]
        yield from found[-50:] if after is None else [e for e in found if e.id > after]

    def approve(self, digest: str) -> str:
        self._called("approve", digest)
        if digest not in self.awaiting:
            raise UsageError(
                f"no plan waits for the approval {digest}", hint=f"waiting: {', '.join(self.awaiting) or 'none'}"
            )
        return self.awaiting.pop(digest)

    def pause(self, environment: str, vm: str | None) -> bool:
        self._called("pause", environment, vm)
        changed = (environment, vm) not in self.paused
        self.paused.add((environment, vm))
        return changed

    def resume(self, environment: str, vm: str | None) -> bool:
        self._called("resume", environment, vm)
        changed = (environment, vm) in self.paused
        self.paused.discard((environment, vm))
        return changed

    def info(self) -> ServiceInfo:
        self._called("info")
        return self.the_info

    def close(self) -> None:
        self.closed += 1
