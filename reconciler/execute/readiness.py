"""Waits until a guest is ready, because another VM may not start before."""

from __future__ import annotations

import os
import threading

from reconciler.drivers.guest.readiness import Readiness, look
from reconciler.drivers.vmm import probe
from reconciler.execute.tools import Tools
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.patience import patience, pause
from reconciler.lib.progress import Progress
from reconciler.lib.units import format_duration
from reconciler.model.actions import AwaitReady
from reconciler.model.ids import mac_address
from reconciler.model.observed import ObservedVm
from reconciler.store.inventory import VmRow

# Each answer costs its guest a forked sshd: asked all at once, a crowd of emulated guests would answer nobody in time.
_SEATS = threading.Semaphore(max(4, 2 * (os.cpu_count() or 1)))


def await_ready(action: AwaitReady, tools: Tools, progress: Progress) -> None:
    """Returns once the VM was seen ready in its present boot, which is then recorded; by whomever it was seen.

    Raises BangerError at once if it ends, a retryable one when `action.timeout` seconds are over.
    """
    progress.update(None, "waiting for the guest")
    began = tools.clock.monotonic()
    asked = 0
    while True:
        waited = tools.clock.monotonic() - began
        late = waited >= action.timeout
        row = tools.inventory.vm(tools.environment, action.name)
        if row is None:
            raise BangerError(f"vm {action.name} is not in the inventory of environment {tools.environment}")
        vm = observed(row, tools)
        if vm.running and vm.ready_at is not None:
            return
        asked += 1
        with _SEATS:
            readiness = look(vm, tools.environment, tools.paths, patience(asked))
        if readiness.ready:
            now = tools.clock.now()
            tools.inventory.mark_ready(tools.environment, row.name, row.id, row.started_at, now)
            return
        if readiness.failed:
            raise BangerError(f"vm {action.name} ended before it was ready: {readiness.message}", hint=_hint(action))
        if late:
            raise _too_late(action, readiness)
        if cancel.cancelled():
            raise CancelledError
        tools.clock.sleep(pause(waited))


def observed(row: VmRow, tools: Tools) -> ObservedVm:
    """What is needed of a VM to reach its guest."""
    install = tools.inventory.install
    vmm = probe.find(install).get(row.id)
    return ObservedVm(
        name=row.name,
        id=row.id,
        spec=row.spec,
        mac=mac_address(install, row.environment, row.name),
        address=row.address,
        booted=row.booted,
        disk=True,
        pid=vmm.pid if vmm is not None else None,
        forwards=row.forwards,
        started_at=row.started_at,
        ready_at=row.ready_at,
    )


def _too_late(action: AwaitReady, readiness: Readiness) -> BangerError:
    return BangerError(
        f"vm {action.name} is not ready after {format_duration(action.timeout)}: {readiness.message}",
        hint=_hint(action),
        error_class=ErrorClass.RETRYABLE,
    )


def _hint(action: AwaitReady) -> str:
    return f"banger logs {action.name} shows its console"
