"""A controller in one thread: its own wheel, passes, steps and bookkeeping, one after another, in no time."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.control.board import Lane
from reconciler.control.host import Trouble
from reconciler.control.passes import attempt, run_pass
from reconciler.control.reconciler import Reconciler
from reconciler.daemon.controller import Controller, _alone
from reconciler.daemon.engine import Engine
from reconciler.daemon.kept import KeptHost
from reconciler.daemon.kept_service import KeptService
from reconciler.daemon.specs import Specs
from reconciler.lib.log import Format, Log
from reconciler.model.observed import ObservedVm
from reconciler.model.plan import Plan
from reconciler.sources.file import Content
from reconciler.store.control import ControlState
from reconciler.store.events import EventLog
from tests.fakes.clock import FakeClock

FILE = Path("/somewhere/banger.yaml")
_MOST_PASSES = 100


class _Wheel(Reconciler):
    def turn(self, clock: FakeClock) -> None:
        """Until nothing is planned any more but what waits for a person. AssertionError if that never comes."""
        for _ in range(_MOST_PASSES):
            due = self._wheel.next_due()
            if due is None or not (self.busy() or self._retrying()):
                return
            clock.time = max(clock.time, due)
            if (environment := self._wheel.begin(clock.time)) is None:
                continue
            run_pass(self._wheel, self._lock, self._host, clock, environment, offer=lambda: None)
            for lane in Lane:
                while (taken := self._wheel.take(lane, clock.time)) is not None:
                    self._wheel.ended(*taken, attempt(self._host, *taken), clock.time)
        raise AssertionError("the controller does not come to rest")

    def _retrying(self) -> bool:
        return any(self.troubles(name) for name in self._wheel._names())


class _Guests:
    """Every guest is ready at once."""

    def __init__(self, engine: Engine, ready: Callable[[str, ObservedVm], None]) -> None:
        self._engine = engine
        self._ready = ready

    def look(self, environment: str, booting: Sequence[ObservedVm]) -> None:
        for vm in booting:
            now = self._engine.clock.now()
            self._engine.inventory().mark_ready(environment, vm.name, vm.id, vm.started_at, now)
            self._ready(environment, vm)


class _Nobody:
    """Who would be told, or watched, and is not."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **named: None


class Unthreaded(Controller):
    """As `Controller`, but `keep` returns once there is nothing to do; `service` is what its clients have."""

    service: KeptService

    def __init__(self, engine: Engine, clock: FakeClock) -> None:
        self.text = io.StringIO()
        super().__init__(engine, [], Log(self.text, Format.HUMAN))
        self._clock = clock
        nobody: Any = _Nobody()
        self._pump = self._naming = nobody

    def keep(self, file: bytes | None, ask: Callable[[Unthreaded], object] | None = None) -> None:
        """Keeps all environments, and with `file` the one that it describes; then does what is asked."""
        engine, log, nobody = self._engine, self._log, self._pump
        with _alone(engine), engine.held(log.info):
            self._control = ControlState(engine.database)
            self._events = EventLog(engine.database, engine.clock)
            guests: Any = _Guests(engine, self._ready)
            host = KeptHost(engine, log, self._counters, nobody, guests, self._settled)  # type: ignore[arg-type]
            self._wheel = wheel = _Wheel(host, self._clock, workers=1, starts=1, random=random.Random(0))
            engine.exclusive = wheel.exclusive
            specs = Specs(engine, log, wheel.forget, self._pump_soon)
            self.service = KeptService(engine, wheel, specs, self._passes, log)
            if file is not None:
                specs.take(Content(path=FILE, data=file, problem=None, digest=hashlib.sha256(file).hexdigest()))
            for environment in engine.inventory().environment_names():
                wheel.poke(environment)
            wheel.turn(self._clock)
            if ask is not None:
                ask(self)
                wheel.turn(self._clock)

    def last_plan(self, environment: str) -> Plan | None:
        return self._passes.plan(environment)

    def troubles(self, environment: str) -> Mapping[str, Trouble]:
        return self._wheel.troubles(environment)
