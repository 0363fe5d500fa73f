"""What the wheel of `control` turns on: the environments of one state directory, with the real host under them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from secrets import token_hex

from reconciler.api.metrics import Counters
from reconciler.control.reconciler import PassReport
from reconciler.daemon import pinning
from reconciler.daemon.engine import Engine
from reconciler.daemon.readying import Readying
from reconciler.drivers.vmm import probe
from reconciler.drivers.vmm.exits import ExitWatch
from reconciler.execute.runner import run_step
from reconciler.execute.tools import Tools
from reconciler.lib.log import Log
from reconciler.model.actions import AwaitReady
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Plan, Step
from reconciler.plan import PlanOptions, plan
from reconciler.store.control import ControlState

Settled = Callable[[PassReport], None]


class _Unseen:
    """An observer of a step that nobody watches: its end is logged, and stored as an event."""

    def started(self, step: Step) -> None:
        pass

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        pass

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        pass

    def finished(self, step: Step, outcome: Outcome) -> None:
        pass


class KeptHost:
    """Implements `control.reconciler.Host`.

    Parameters
    ----------
    engine: holds the writer lock.
    tell: what hears of every pass; may be called from several threads.
    """

    def __init__(  # noqa: PLR0917  # the parts of one controller
        self, engine: Engine, log: Log, counters: Counters, exits: ExitWatch, readying: Readying, tell: Settled
    ) -> None:
        self._engine = engine
        self._log = log
        self._counters = counters
        self._exits = exits
        self._readying = readying
        self._tell = tell
        self._tools: dict[str, Tools] = {}
        self._watched: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def desired(self, environment: str) -> DesiredState | None:
        row = self._engine.inventory().environment(environment)
        return row.desired if row is not None else None

    def generation(self, environment: str) -> int:
        row = self._engine.inventory().environment(environment)
        return row.generation if row is not None else 0

    def resync(self, environment: str) -> float:
        desired = self.desired(environment)
        return (desired or DesiredState(environment=environment)).controller.resync

    def plan(self, environment: str) -> Plan:
        """What is to be done now; empty for an environment that was never applied, or was deleted."""
        desired = self.desired(environment)
        if desired is None:
            return Plan(environment=environment)
        desired = pinning.by_memory(self._engine.paths, desired)
        observed = self._engine.observe(environment, desired)
        self._watch(environment, observed)
        options = PlanOptions(
            unattended=True,
            prune=desired.controller.prune,
            max_delete=desired.controller.max_delete,
            approved=ControlState(self._engine.database).approved(environment),
        )
        return plan(desired, observed, options)

    def launchable(self, environment: str, step: Step) -> bool:
        """Not what a person has paused; and readiness is looked after by `Readying`, for every VM."""
        if isinstance(step.action, AwaitReady):
            return False
        paused = ControlState(self._engine.database).paused(environment)
        return not (paused.environment or step.action.object.removeprefix("vm/") in paused.vms)

    def run(self, environment: str, step: Step) -> Outcome:
        operation = token_hex(6)
        log = self._log.bind(operation=operation, environment=environment, object=step.action.object)
        log.info(step.action.describe(), reason=step.action.reason)
        tools = dataclasses.replace(self._tools_of(environment), journal=self._engine.journal(operation))
        outcome = run_step(step, tools, _Unseen(), lock=threading.Lock(), attempts=1)
        self._counters.observe_step(step.action.verb, outcome.result.value)
        if outcome.error is not None:
            log.warning(f"failed: {outcome.error.cause}", hint=outcome.error.hint, seconds=round(outcome.seconds, 3))
        else:
            log.info("done", seconds=round(outcome.seconds, 3))
        return outcome

    def settled(self, report: PassReport) -> None:
        self._tell(report)

    def _tools_of(self, environment: str) -> Tools:
        with self._lock:
            if environment not in self._tools:
                self._tools[environment] = self._engine.tools(environment, "")
            return self._tools[environment]

    def _watch(self, environment: str, observed: ObservedState) -> None:
        """Has the end of every VMM, and the readiness of every guest, noticed when they happen."""
        running = {vm.name: vm.pid for vm in observed.vms.values() if vm.pid is not None}
        known = self._watched.get(environment, {})
        if running != known:
            self._watched[environment] = running
            for name in known.keys() - running.keys():
                self._exits.forget(f"{environment}/{name}")
            processes = {vmm.pid: vmm for vmm in probe.find(observed.install).values()}
            for name, pid in running.items():
                if known.get(name) != pid and pid in processes:
                    self._exits.watch(f"{environment}/{name}", processes[pid])
        self._readying.look(environment, [vm for vm in observed.vms.values() if vm.running and vm.ready_at is None])
