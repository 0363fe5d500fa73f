"""Sees to it that every guest that boots is seen ready: one thread for each environment that has such guests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.daemon import views
from reconciler.daemon.engine import Engine
from reconciler.lib.errors import BangerError
from reconciler.lib.patience import patience, pause
from reconciler.model.observed import ObservedVm
from reconciler.observe.guests import AT_ONCE, Readiness, look_at_all

_LATE_SECONDS = 10.0
"""Between two probes of a guest that was not ready in time: it may still come, and costs next to nothing."""


@dataclass(slots=True)
class _Guest:
    """One boot that is not known to be ready. Times on the monotonic clock."""

    boot: tuple[int | None, float | None]
    since: float
    next_at: float
    asked: int = 0
    late: bool = False


class Readying:
    """Probes guests until they answer, and notes when they first did. A guest that hangs delays no other.

    Parameters
    ----------
    ready: called with environment and VM once it was seen ready.
    late: called once for a boot that was not ready in its time, with what it lacks.
    """

    def __init__(
        self,
        engine: Engine,
        ready: Callable[[str, ObservedVm], None],
        late: Callable[[str, ObservedVm, Readiness], None],
    ) -> None:
        self._engine = engine
        self._ready = ready
        self._late = late
        self._changed = threading.Condition()
        self._guests: dict[str, dict[str, _Guest]] = {}
        self._working: set[str] = set()
        self._ended = False

    def look(self, environment: str, booting: Sequence[ObservedVm]) -> None:
        """Tells which guests run and are not known to be ready. Returns at once."""
        now = self._engine.clock.monotonic()
        with self._changed:
            known = self._guests.get(environment, {})
            wanted = {vm.name: (vm.pid, vm.started_at) for vm in booting}
            self._guests[environment] = {
                name: known[name] if name in known and known[name].boot == boot else _Guest(boot, now, now)
                for name, boot in wanted.items()
            }
            self._changed.notify_all()
            if not wanted or environment in self._working or self._ended:
                return
            self._working.add(environment)
        threading.Thread(target=self._work, args=(environment,), name=f"ready-{environment}", daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _work(self, environment: str) -> None:
        while (due := self._due(environment)) is not None:
            try:
                vms = views.observe_vms(self._engine, environment)
            except BangerError:
                self._put_off(environment, due, _LATE_SECONDS)  # the host could not be read just now
                continue
            here = [vms[name] for name in due if name in vms]

            def judge(vm: ObservedVm, readiness: Readiness) -> None:
                self._judge(environment, vm, readiness)

            look_at_all(here, environment, self._engine.paths, lambda vm: patience(self._asked(environment, vm)), judge)
            self._drop(environment, set(due) - {vm.name for vm in here})

    def _due(self, environment: str) -> list[str] | None:
        """Waits for guests whose turn it is; None when there are none left to ask, in one step with leaving."""
        with self._changed:
            while True:
                guests = self._guests.get(environment, {})
                if not guests or self._ended:
                    self._working.discard(environment)
                    return None
                now = self._engine.clock.monotonic()
                due = sorted((guest.next_at, name) for name, guest in guests.items() if guest.next_at <= now)
                if due:
                    return [name for _, name in due[:AT_ONCE]]
                self._changed.wait(min(guest.next_at for guest in guests.values()) - now)

    def _asked(self, environment: str, vm: ObservedVm) -> int:
        guest = self._guests.get(environment, {}).get(vm.name)
        return guest.asked if guest is not None else 0

    def _judge(self, environment: str, vm: ObservedVm, readiness: Readiness) -> None:
        if readiness.ready:
            inventory = self._engine.inventory()
            inventory.mark_ready(environment, vm.name, vm.id, vm.started_at, self._engine.clock.now())
            self._drop(environment, {vm.name})
            self._ready(environment, vm)
            return
        if not vm.running:
            # It ended. The pass that its exit brings says what becomes of it.
            self._drop(environment, {vm.name})
            return
        now = self._engine.clock.monotonic()
        with self._changed:
            guest = self._guests.get(environment, {}).get(vm.name)
            if guest is None:
                return
            guest.asked += 1
            newly_late = not guest.late and now - guest.since >= vm.spec.ready.timeout
            guest.late = guest.late or newly_late
            guest.next_at = now + (_LATE_SECONDS if guest.late else pause(now - guest.since))
        if newly_late:
            self._late(environment, vm, readiness)

    def _put_off(self, environment: str, names: Sequence[str], seconds: float) -> None:
        later = self._engine.clock.monotonic() + seconds
        with self._changed:
            for name in names:
                if guest := self._guests.get(environment, {}).get(name):
                    guest.next_at = later

    def _drop(self, environment: str, names: set[str]) -> None:
        with self._changed:
            for name in names:
                self._guests.get(environment, {}).pop(name, None)
