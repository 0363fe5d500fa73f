"""The service of a running controller: the same operations, beside a wheel that keeps turning.

What changes an environment goes through `Engine.writing`, which in a controller shuts the wheel out of the objects
concerned for as long; so both run the very same code as a command line without a controller.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from reconciler import __version__
from reconciler.api.service import (
    ApplyOptions,
    ApplyResult,
    Approve,
    Reporter,
    ServiceInfo,
    Source,
    SourceInfo,
    VmRef,
    VmVerb,
)
from reconciler.control.reconciler import Reconciler
from reconciler.daemon import conditions
from reconciler.daemon.engine import Engine
from reconciler.daemon.local import LocalService
from reconciler.daemon.passes import LastPasses
from reconciler.daemon.specs import Specs
from reconciler.lib.errors import UsageError
from reconciler.lib.log import Log
from reconciler.model.desired import DesiredState
from reconciler.model.nouns import Noun
from reconciler.model.status import Condition, ConditionType, ObjectStatus, State
from reconciler.store.control import ControlState


class KeptService(LocalService):
    """Implements `reconciler.api.service.Service` for the clients of a controller."""

    def __init__(self, engine: Engine, wheel: Reconciler, specs: Specs, passes: LastPasses, log: Log) -> None:
        super().__init__(engine)
        self._wheel = wheel
        self._specs = specs
        self._passes = passes
        self._log = log
        self._since = engine.clock.now()
        self._control = ControlState(engine.database)

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        self._not_anothers(desired, source)
        options = self._begun(options, f"apply {source.path}", desired.environment)
        # What failed before may work with what is wanted now, and somebody is waiting for it.
        self._wheel.forget(desired.environment, None)
        return super().apply(desired, source, options, reporter, approve)

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        if keeper := self._specs.keeper(environment):
            raise UsageError(
                f"environment {environment} is what {keeper} describes, which this controller watches",
                hint="move the file away first; else it would be made again at once",
            )
        options = self._begun(options, "delete", environment)
        result = super().delete(environment, options, reporter, approve)
        self._wheel.forget(environment, None)
        return result

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        options = self._begun(options, f"{verb} vm {ref.name}", ref.environment)
        self._wheel.forget(ref.environment, f"vm/{ref.name}")
        super().vm(verb, ref, options, reporter)

    def restore(
        self, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
    ) -> VmRef:
        # Late: it brings every driver along.
        from reconciler.daemon.power import plan_restore  # noqa: PLC0415

        bare, where = (name.partition("/")[2], name.partition("/")[0]) if "/" in name else (name, environment)
        ref, _ = plan_restore(bare, where, entry, self._engine)
        row = self._engine.inventory().environment(ref.environment)
        if row is not None and row.desired.controller.prune and ref.name not in row.desired.vms:
            pauses = self._control.paused(ref.environment)
            if not pauses.environment and ref.name not in pauses.vms:
                raise UsageError(
                    f"vm {ref} is not in {row.source}, so the controller would move it to the trash again",
                    hint=f"`banger pause`, restore it, put vms.{ref.name} back into the file, then `banger resume`",
                )
        options = self._begun(options, f"restore vm {ref.name}", ref.environment)
        return super().restore(name, environment, entry, options, reporter)

    def prune_cache(
        self, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        options = self._begun(options, "prune the cache", desired.environment)
        return super().prune_cache(desired, options, reporter, approve)

    def status(self, environment: str | None) -> list[ObjectStatus]:
        found = []
        for name in (name for name in self.environments() if environment in (None, name)):
            extra = self._extra(name)
            since = self._control.transitions(name)
            statuses = [self._environment(name), *super().status(name)]
            found += [conditions.told(status, extra, since) for status in statuses]
        return found

    def networks(self, environment: str | None) -> list[ObjectStatus]:
        found = []
        for name in (name for name in self.environments() if environment in (None, name)):
            extra, since = self._extra(name), self._control.transitions(name)
            found += [conditions.told(status, extra, since) for status in super().networks(name)]
        return found

    def approve(self, digest: str) -> str:
        waiting = {}
        for name in self.environments():
            plan = self._passes.plan(name)
            if plan is not None and plan.approval is not None:
                waiting[plan.approval] = name
        if digest not in waiting:
            known = ", ".join(f"{wanted} (environment {name})" for wanted, name in waiting.items())
            raise UsageError(
                f"no plan waits for the approval {digest}", hint=f"waiting: {known}" if known else "none waits"
            )
        self._control.approve(waiting[digest], digest, self._engine.clock.now())
        self._log.info("removals approved", environment=waiting[digest], approval=digest)
        self._wheel.poke(waiting[digest])
        return waiting[digest]

    def pause(self, environment: str, vm: str | None) -> bool:
        changed = super().pause(environment, vm)
        self._log.info("paused", environment=environment, object=f"vm/{vm}" if vm else "")
        self._wheel.poke(environment)
        return changed

    def resume(self, environment: str, vm: str | None) -> bool:
        changed = super().resume(environment, vm)
        # Also without a pause: it is how a contended object is told that whatever undid it is gone.
        self._wheel.forget(environment, f"vm/{vm}" if vm else None)
        self._log.info("resumed", environment=environment, object=f"vm/{vm}" if vm else "")
        self._wheel.poke(environment)
        return changed

    def info(self) -> ServiceInfo:
        rows = {}
        for name in self.environments():
            row = self._engine.inventory().environment(name)
            rows[name] = row.generation if row is not None else 0
        return ServiceInfo(
            version=__version__,
            pid=os.getpid(),
            state=self._engine.paths.state,
            controller=True,
            since=self._since,
            sources=tuple(
                SourceInfo(
                    path=Path(row.path),
                    environment=row.environment,
                    problem=row.problem,
                    generation=rows.get(row.environment or "", 0),
                    since=row.since,
                )
                for row in self._control.sources()
            ),
        )

    def close(self) -> None:
        """Nothing: the engine is the controller's."""

    def _begun(self, options: ApplyOptions, what: str, environment: str) -> ApplyOptions:
        operation = options.operation or token_hex(6)
        self._log.info(f"asked to {what}", operation=operation, environment=environment)
        return replace(options, operation=operation)

    def _not_anothers(self, desired: DesiredState, source: Source) -> None:
        """Two truths about one environment would undo each other for ever."""
        keeper = self._specs.keeper(desired.environment)
        if keeper is None:
            return
        if keeper.resolve() != source.path.resolve():
            raise UsageError(
                f"environment {desired.environment} is what {keeper} describes, which the controller watches",
                hint=f"edit that file, or give {source.path} a name of its own",
            )
        own = self._specs.of_file(keeper)
        row = self._engine.inventory().environment(desired.environment)
        if own is not None and row is not None and row.digest == source.digest and own != desired:
            raise UsageError(
                f"the controller reads {keeper} with other parameters than you",
                hint="set them where the controller runs (BANGER_PARAM_x), or edit their defaults",
            )

    def _environment(self, name: str) -> ObjectStatus:
        """The environment itself: which generation is asked for, which one was acted upon, and what is wrong with its file."""
        row = self._engine.inventory().environment(name)
        source = next((s for s in self._control.sources() if s.environment == name), None)
        problem = source.problem if source is not None else None
        trouble = self._passes.error(name)
        message = problem or trouble or ""
        reason = "InvalidSpec" if problem else "PassFailed" if trouble else "Kept"
        return ObjectStatus(
            kind=Noun.ENVIRONMENT,
            name=name,
            environment=name,
            state=State.FAILED if message else State.READY,
            ready=not message,
            conditions=(
                Condition(
                    type=ConditionType.READY,
                    status=not message,
                    reason=reason,
                    message=message,
                    since=source.since if source is not None and problem else None,
                ),
            ),
            details={
                "source": row.source if row is not None else None,
                "generation": row.generation if row is not None else None,
                "observedGeneration": self._passes.generation(name),
            },
        )

    def _extra(self, environment: str) -> conditions.Extra:
        return conditions.of_environment(
            self._passes.plan(environment),
            self._wheel.troubles(environment),
            self._control.paused(environment),
        )
