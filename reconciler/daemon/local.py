"""The service of `reconciler.api`, done in this process.

Reading is done by `views`; what changes things is imported when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.daemon import views
from reconciler.daemon.engine import Engine
from reconciler.lib.clock import Clock, SystemClock
from reconciler.lib.errors import UsageError
from reconciler.lib.paths import Paths
from reconciler.model.vm import RunState

if TYPE_CHECKING:
    from reconciler.api.service import (
        ApplyOptions,
        ApplyResult,
        Approve,
        CachedImage,
        CacheView,
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
    from reconciler.model.desired import DesiredState
    from reconciler.model.events import Event
    from reconciler.model.plan import Plan
    from reconciler.model.status import ObjectStatus
    from reconciler.model.usage import VmUsage

# ruff: noqa: PLC0415  # `operations` pulls in every driver, which `ps` and `status` do without; as they do without the contract


def open_service(paths: Paths, clock: Clock | None = None) -> LocalService:
    """The service for one state directory. Creates nothing until something is to be changed."""
    return LocalService(Engine(paths, clock or SystemClock()))


class LocalService:
    """Implements `reconciler.api.service.Service`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def plan(self, desired: DesiredState, options: ApplyOptions) -> Plan:
        from reconciler.daemon import operations

        return operations.make_plan(self._engine, desired, options)

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        from reconciler.daemon import operations

        return operations.apply(self._engine, desired, source, options, reporter, approve)

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        from reconciler.daemon import operations

        self._known(environment)
        return operations.delete(self._engine, environment, options, reporter, approve)

    def wait(
        self,
        environment: str,
        names: Sequence[str],
        timeout: float | None,
        reporter: Reporter,
        condition: WaitFor | None = None,
    ) -> None:
        from reconciler.api.service import WaitFor
        from reconciler.daemon import operations

        if condition not in (None, WaitFor.READY):
            operations.wait_for(self._engine, environment, names, timeout, condition)
            return
        self._known(environment)
        for name in names:
            self.resolve(name, environment)
        vms = views.observe_vms(self._engine, environment)
        chosen = list(names) or [vm.name for vm in vms.values() if vm.spec.state is RunState.RUNNING]
        if late := operations.wait(self._engine, environment, chosen, timeout, reporter):
            raise operations.not_ready_error(late)

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        from reconciler.daemon import operations

        operations.power_verb(self._engine, verb, ref, options, reporter)

    def restore(
        self, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
    ) -> VmRef:
        from reconciler.daemon import operations

        if "/" in name:
            environment, _, name = name.partition("/")
        return operations.restore(self._engine, name, environment, entry, options, reporter)

    def environments(self) -> list[str]:
        return self._engine.inventory().environment_names() if self._engine.exists else []

    def status(self, environment: str | None) -> list[ObjectStatus]:
        names = [name for name in self.environments() if environment in (None, name)]
        return [status for name in names for status in views.status(self._engine, name)]

    def vms(self, environment: str | None) -> list[ObjectStatus]:
        return views.vms(self._engine, environment) if self._engine.exists else []

    def usage(self, environment: str | None) -> list[VmUsage]:
        return views.usage(self._engine, environment) if self._engine.exists else []

    def networks(self, environment: str | None) -> list[ObjectStatus]:
        names = [name for name in self.environments() if environment in (None, name)]
        return [status for name in names for status in views.networks(self._engine, name)]

    def resolve(self, name: str, environment: str | None) -> VmRef:
        from reconciler.api.service import VmRef

        wanted = name.removeprefix("vm/")
        if "/" in wanted:
            environment, _, wanted = wanted.partition("/")
        rows = self._engine.inventory().vms(environment) if self._engine.exists else []
        matches = [VmRef(environment=row.environment, name=row.name) for row in rows if row.name == wanted]
        if len(matches) == 1:
            return matches[0]
        where = f" in environment {environment}" if environment else ""
        if matches:
            raise UsageError(
                f"vm {wanted} is in more than one environment", hint="write " + " or ".join(map(str, matches))
            )
        import difflib

        near = difflib.get_close_matches(wanted, [row.name for row in rows], n=1)
        hint = f"did you mean {near[0]}?" if near else "banger ps lists the vms there are"
        raise UsageError(f"there is no vm {wanted}{where}", hint=hint)

    def trash(self) -> list[TrashEntry]:
        return views.trash(self._engine.paths)

    def discard(self, entry: str) -> int:
        from reconciler.daemon import discarding

        return discarding.discard(self._engine, entry)

    def cache(self, desired: DesiredState | None) -> CacheView:
        from reconciler.daemon import retention

        return retention.view(self._engine, desired)

    def prune_cache(
        self, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        from reconciler.daemon import retention

        return retention.prune(self._engine, desired, options, reporter, approve)

    def clear_blobs(self, dry_run: bool) -> Cleared:
        from reconciler.daemon import retention

        return retention.clear_blobs(self._engine.paths, dry_run)

    def commit(self, ref: VmRef, image: str, options: ApplyOptions, reporter: Reporter) -> Committed:
        from reconciler.daemon.committing import commit

        return commit(self._engine, ref, image, reporter)

    def images(self) -> list[CachedImage]:
        from reconciler.daemon import images

        return images.images(self._engine)

    def remove_image(self, identity: str) -> int:
        from reconciler.daemon import images

        return images.remove(self._engine, identity)

    def pin_image(self, identity: str, pinned: bool) -> bool:
        from reconciler.daemon import images

        return images.pin(self._engine, identity, pinned=pinned)

    def lock_images(self, desired: DesiredState) -> Mapping[str, str]:
        from reconciler.daemon import images

        return images.lock(self._engine, desired)

    def ssh_argv(
        self, ref: VmRef, command: Sequence[str] | None, tty: bool | None, options: SshOptions | None = None
    ) -> list[str]:
        from reconciler.api.service import SshOptions
        from reconciler.daemon import entering

        return entering.ssh_argv(self._engine, ref, command, tty, options or SshOptions())

    def way_in(self, ref: VmRef, user: str | None) -> WayIn:
        from reconciler.daemon import entering

        return entering.way_in(self._engine, ref, user)

    def ssh_config(self) -> SshConfig:
        from reconciler.api.service import SshConfig
        from reconciler.daemon import sshconfig

        paths = self._engine.paths
        text = sshconfig.render(paths, self._engine.inventory() if self._engine.exists else None)
        return SshConfig(path=paths.ssh_config, text=text, kept=paths.ssh_config.exists())

    def keep_ssh_config(self, wanted: bool) -> None:
        from reconciler.daemon import sshconfig

        with self._engine.writing(lambda message: None):
            sshconfig.keep(self._engine.paths, self._engine.inventory(), wanted=wanted)

    def console_log(self, ref: VmRef) -> Path:
        return self._engine.paths.vm(ref.environment, ref.name).console_log

    def events(self, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
        if not self._engine.exists and not follow:
            return
        from reconciler.daemon import history

        yield from history.events(self._engine, environment, after, follow)

    def approve(self, digest: str) -> str:
        raise UsageError(
            f"no plan waits for the approval {digest}: no controller runs that would hold one back",
            hint="`banger plan` shows what would be removed, and `banger apply` asks",
        )

    def pause(self, environment: str, vm: str | None) -> bool:
        return self._set_paused(environment, vm, paused=True)

    def resume(self, environment: str, vm: str | None) -> bool:
        return self._set_paused(environment, vm, paused=False)

    def info(self) -> ServiceInfo:
        from reconciler import __version__
        from reconciler.api.service import ServiceInfo

        return ServiceInfo(
            version=__version__,
            pid=os.getpid(),
            state=self._engine.paths.state,
            controller=False,
            since=self._engine.clock.now(),
            sources=(),
        )

    def close(self) -> None:
        self._engine.close()

    def _set_paused(self, environment: str, vm: str | None, *, paused: bool) -> bool:
        from reconciler.store.control import ControlState

        self._known(environment)
        if vm is not None:
            self.resolve(vm, environment)
        # Not as a change of the environment, which would wait for what is being done to it.
        with self._engine.writing(lambda message: None):
            control = ControlState(self._engine.database)
            if not paused:
                return control.resume(environment, vm)
            before = control.paused(environment)
            if before.environment if vm is None else vm in before.vms:
                return False
            control.pause(environment, vm, self._engine.clock.now())
            return True

    def _known(self, environment: str) -> None:
        if environment not in self.environments():
            raise UsageError(
                f"there is no environment {environment}",
                hint="banger apply makes one; known: " + (", ".join(self.environments()) or "none"),
            )
