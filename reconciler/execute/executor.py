"""Walks a plan with a pool of threads: a step starts as soon as all that it needs is done."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from reconciler.execute.dispatch import perform
from reconciler.execute.runner import Observer, Perform, run_step, untried
from reconciler.execute.tools import Tools
from reconciler.lib import run
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.model.actions import AwaitReady, ConfigureGuest, ProvisionVm, StartVm
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step

__all__ = ["Executor", "Observer", "Perform"]

_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class _Pools:
    steps: ThreadPoolExecutor
    starts: ThreadPoolExecutor
    waits: ThreadPoolExecutor

    def of(self, step: Step) -> ThreadPoolExecutor:
        match step.action:
            case StartVm():
                return self.starts
            case AwaitReady() | ConfigureGuest() | ProvisionVm():
                return self.waits
            case _:
                return self.steps


class Executor:
    """Executes plans. One failing step delays only those that need it (I7)."""

    def __init__(self, tools: Tools, observer: Observer, *, parallel: int, perform: Perform = perform) -> None:
        self._tools = tools
        self._observer = observer
        self._parallel = parallel
        self._perform = perform
        self._lock = threading.Lock()

    def execute(self, plan: Plan) -> tuple[Outcome, ...]:
        """Runs every step that can be run; returns one outcome per step, in the order in which they ended.

        Ctrl-C ends the running children and raises CancelledError once every worker has come to rest.
        """
        done: dict[str, Outcome] = {}
        waiting = list(plan.steps)
        running: dict[Future[Outcome], Step] = {}
        # Starts wait for their turn to boot, and others for a guest: in threads of their own, so that nothing else
        # waits with them. A guest that never becomes ready takes a thread and nothing else (I7).
        awaited = sum(isinstance(step.action, (AwaitReady, ConfigureGuest, ProvisionVm)) for step in plan.steps)
        with (
            ThreadPoolExecutor(self._parallel, thread_name_prefix="step") as pool,
            ThreadPoolExecutor(self._tools.boots.places, thread_name_prefix="start") as starts,
            ThreadPoolExecutor(max(1, awaited), thread_name_prefix="wait") as waits,
        ):
            pools = _Pools(pool, starts, waits)
            try:
                while waiting or running:
                    waiting = self._launch(waiting, done, running, pools)
                    if not running:
                        if waiting:
                            raise BangerError(f"step {waiting[0].id} waits for something that is not in its plan")
                        continue
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        step = running.pop(future)
                        done[step.id] = future.result()
            except KeyboardInterrupt:
                run.cancel_all()
                wait(running)
                raise CancelledError from None
        return tuple(done.values())

    def _launch(
        self,
        waiting: list[Step],
        done: dict[str, Outcome],
        running: dict[Future[Outcome], Step],
        pools: _Pools,
    ) -> list[Step]:
        """Starts what can start, skips what never can, and returns what has to wait."""
        left = []
        for step in waiting:
            broken = next((need for need in step.needs if need in done and not done[need].result.ok), None)
            if broken is not None:
                done[step.id] = untried(step, Result.SKIPPED, self._observer, lock=self._lock, blocked_by=broken)
            elif all(need in done for need in step.needs):
                running[pools.of(step).submit(self._run, step)] = step
            else:
                left.append(step)
        return left

    def _run(self, step: Step) -> Outcome:
        return run_step(step, self._tools, self._observer, lock=self._lock, attempts=_ATTEMPTS, perform=self._perform)
