"""Waits until VMs are ready, each within its own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.lib import cancel
from reconciler.lib.clock import Clock
from reconciler.lib.errors import CancelledError
from reconciler.lib.paths import Paths
from reconciler.lib.patience import patience, pause
from reconciler.model.observed import ObservedVm
from reconciler.model.status import ObjectStatus
from reconciler.observe.guests import AT_ONCE, Readiness, look_at_all
from reconciler.observe.status import vm_status


@dataclass(frozen=True, slots=True)
class Waiter:
    """Where the waiting looks, and whom it tells.

    observe: the VMs by name, read anew.
    seen_ready: called once for each VM, when it is first seen ready.
    tell: gets all states whenever one has changed.
    """

    environment: str
    paths: Paths
    clock: Clock
    observe: Callable[[], Mapping[str, ObservedVm]]
    seen_ready: Callable[[ObservedVm], None]
    tell: Callable[[Sequence[ObjectStatus]], None]

    def wait(self, names: Sequence[str], timeout: float | None) -> list[ObjectStatus]:
        """Returns the last status of each named VM, once none of them can still become ready in time.

        timeout: seconds from now for all; None gives each VM its own `ready.timeout`, from now too, so that a
        VM which was started long ago gets its chance.
        """
        began = self.clock.monotonic()
        current: dict[str, ObjectStatus] = {}
        pending = list(names)
        asked: Counter[str] = Counter()
        while True:
            vms = self.observe()
            here = [vms[name] for name in pending if name in vms]
            before = {name: status.state for name, status in current.items()}
            done: set[str] = set(pending) - {vm.name for vm in here}
            batch = here[:AT_ONCE]
            asked.update(vm.name for vm in batch)
            # Over at the deadline even if a guest keeps its probe busy, and not before a last look.
            elapsed = self.clock.monotonic() - began

            def judge(vm: ObservedVm, readiness: Readiness, done: set[str] = done, elapsed: float = elapsed) -> None:
                current[vm.name] = vm_status(self.environment, vm, readiness)
                if readiness.ready and vm.ready_at is None:
                    self.seen_ready(vm)
                limit = vm.spec.ready.timeout if timeout is None else timeout
                if readiness.ready or readiness.failed or elapsed >= limit:
                    done.add(vm.name)

            look_at_all(batch, self.environment, self.paths, lambda vm: patience(asked[vm.name]), judge)
            if {name: status.state for name, status in current.items()} != before:
                self.tell(list(current.values()))
            # Those that were just asked go to the end of the line.
            pending = [vm.name for vm in (*here[AT_ONCE:], *batch) if vm.name not in done]
            if not pending:
                return list(current.values())
            if cancel.cancelled():
                raise CancelledError
            self.clock.sleep(pause(elapsed))
