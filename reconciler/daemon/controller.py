"""The long-running process: keeps every environment of one state directory as it was last asked for.

What happens where: sources bring files, `Specs` makes generations of them, exits and links and clients say "look
again", the wheel looks and acts, `Readying` sees guests come up, `Pump` tells whoever follows along.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.api.metrics import Counters
from reconciler.api.server import Server
from reconciler.control.reconciler import PassReport, Reconciler
from reconciler.daemon import conditions
from reconciler.daemon.engine import Engine
from reconciler.daemon.kept import KeptHost
from reconciler.daemon.kept_service import KeptService
from reconciler.daemon.naming import Naming, loopback_port
from reconciler.daemon.passes import LastPasses
from reconciler.daemon.pump import Pump
from reconciler.daemon.readying import Readying
from reconciler.daemon.specs import Specs
from reconciler.drivers.cache.room import RoomWatch
from reconciler.drivers.network.monitor import LinkWatch
from reconciler.drivers.network.rules_watch import RulesWatch
from reconciler.drivers.vmm.exits import ExitWatch
from reconciler.helper.names import managed
from reconciler.lib import cancel, notify, run
from reconciler.lib.atomic import LockTakenError, exclusive
from reconciler.lib.errors import BangerError
from reconciler.lib.log import Log
from reconciler.lib.paths import Paths
from reconciler.model.observed import ObservedVm
from reconciler.model.status import ConditionType
from reconciler.observe.guests import Readiness
from reconciler.sources.file import FileSource
from reconciler.store.control import ControlState
from reconciler.store.events import EventLog

_WORKERS = 8
_STOP_SECONDS = 15.0


class Controller:
    """One controller. `run` returns when the process is told to end.

    Parameters
    ----------
    sources: the files, and folders of files, that are watched; none keeps what was applied by hand.
    """

    def __init__(self, engine: Engine, sources: Sequence[Path], log: Log) -> None:
        self._engine = engine
        self._paths = sources
        self._log = log
        self._passes = LastPasses()
        self._counters = Counters()
        self._rules: RulesWatch | None = None
        self._room = RoomWatch(engine.paths.cache, self._room_changed)

    def run(self) -> None:
        """Raises BangerError if another controller has the state directory, or a part cannot be started."""
        with ExitStack() as stack:
            stack.enter_context(_alone(self._engine))
            stack.enter_context(self._engine.held(self._log.info))
            self._control = ControlState(self._engine.database)
            self._events = EventLog(self._engine.database, self._engine.clock)
            readying = Readying(self._engine, self._ready, self._late)
            exits = ExitWatch(self._exited)
            install = self._engine.inventory().install
            self._rules = RulesWatch(self._engine.helper.open_watching, install, self._links_changed)
            stack.callback(self._rules.stop)
            stack.callback(self._room.stop)
            host = KeptHost(self._engine, self._log, self._counters, exits, readying, self._settled)
            starts = len(os.sched_getaffinity(0))
            self._wheel = Reconciler(host, self._engine.clock, workers=_WORKERS, starts=starts)
            self._engine.exclusive = self._wheel.exclusive
            specs = Specs(self._engine, self._log, self._wheel.forget, self._pump_soon)
            service = KeptService(self._engine, self._wheel, specs, self._passes, self._log)
            server = Server(service, self._engine.paths.api_socket, uid=os.geteuid(), counters=self._counters)
            self._pump = Pump(self._events, server.publish)
            self._naming = Naming(self._engine.paths, self._log, port=loopback_port(os.environ))
            # Ended in the opposite order: nobody is asked who has gone already.
            for start, stop in (
                (exits.start, exits.stop),
                (self._pump.start, self._pump.stop),
                (self._naming.start, self._naming.stop),
                (self._wheel.start, self._stop_wheel),
                (lambda: None, readying.stop),
                (server.start, server.stop),
            ):
                start()
                stack.callback(stop)
            links = LinkWatch(self._links_changed, managed)
            links.start()
            stack.callback(links.stop)
            for path in self._paths:
                source = FileSource(path, specs.take, clock=self._engine.clock)
                source.start()
                stack.callback(source.stop)
            for environment in self._engine.inventory().environment_names():
                self._wheel.poke(environment)
            self._log.info(
                "keeping", state=str(self._engine.paths.state), sources=" ".join(map(str, self._paths)) or "none"
            )
            notify.ready(f"keeping {self._engine.paths.state}")
            stack.callback(notify.stopping)
            self._rest()

    def _rest(self) -> None:
        """Until the process is told to end; tells systemd that the wheel still turns, while it does."""
        interval = notify.watchdog_interval()
        while not cancel.cancelled():
            cancel.pause(interval if interval is not None else threading.TIMEOUT_MAX)
            if interval is not None and self._wheel.alive():
                notify.watchdog()

    def _stop_wheel(self) -> None:
        """Steps that are under way end where they are, children first: whatever is cut off, the next pass repairs."""
        run.cancel_all()
        self._wheel.stop(_STOP_SECONDS)

    def _settled(self, report: PassReport) -> None:
        environment = report.environment
        if self._rules is not None and self._engine.inventory().networks(environment):
            self._rules.start()  # not before: it takes the root helper, which others can do without
        if self._minds_room(environment):
            self._room.start()
        self._passes.note(
            environment, report.plan, int(report.generation), report.error.cause if report.error is not None else None
        )
        self._counters.observe_pass(environment, report.seconds, ok=report.error is None)
        if report.error is not None:
            self._log.warning(f"the host cannot be observed: {report.error.cause}", environment=environment)
        elif report.plan is not None:
            self._note_transitions(environment, report)
            if report.plan.approval is None and self._control.approved(environment):
                self._control.forget_approvals(environment)
        self._engine.tell_ssh(self._log.warning)
        self._engine.keep_consoles()
        self._pump.poke()
        self._naming.poke()

    def _note_transitions(self, environment: str, report: PassReport) -> None:
        extra = conditions.of_environment(
            report.plan, self._wheel.troubles(environment), self._control.paused(environment)
        )
        for name, condition in conditions.remember(self._control, environment, extra, self._engine.clock.now()):
            if condition.type is ConditionType.DEGRADED:
                continue  # the failed step has told it
            self._events.append(environment, name, condition.type.value, condition.message, warning=True)
            self._log.warning(f"{condition.type.value}: {condition.message}", environment=environment, object=name)

    def _exited(self, key: str) -> None:
        environment, _, name = key.partition("/")
        self._log.info("its VMM has ended", environment=environment, object=f"vm/{name}")
        self._wheel.poke(environment)

    def _links_changed(self) -> None:
        for environment in self._engine.inventory().environment_names():
            if self._engine.inventory().networks(environment):
                self._wheel.poke(environment)

    def _minds_room(self, environment: str) -> bool:
        """Whether its policy depends on how much room others leave."""
        row = self._engine.inventory().environment(environment)
        limits = row.desired.cache.limits if row is not None and row.desired.cache is not None else None
        return limits is not None and (limits.min_free is not None or limits.min_free_part is not None)

    def _room_changed(self) -> None:
        for environment in filter(self._minds_room, self._engine.inventory().environment_names()):
            self._wheel.poke(environment)

    def _ready(self, environment: str, vm: ObservedVm) -> None:
        self._events.append(environment, f"vm/{vm.name}", "Ready", f"vm {vm.name} is ready")
        self._log.info("ready", environment=environment, object=f"vm/{vm.name}")
        self._pump.poke()
        self._wheel.poke(environment)

    def _late(self, environment: str, vm: ObservedVm, readiness: Readiness) -> None:
        message = f"vm {vm.name} is not ready in time: {readiness.message}"
        self._events.append(environment, f"vm/{vm.name}", "NotReady", message, warning=True)
        self._log.warning(message, environment=environment, object=f"vm/{vm.name}")
        self._pump.poke()

    def _pump_soon(self) -> None:
        self._pump.poke()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """One controller for each state directory. BangerError names the one that is there."""
    paths: Paths = engine.paths
    try:
        paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        raise BangerError(
            f"cannot create {paths.state}: {problem.strerror}", hint="set BANGER_HOME to a folder of yours"
        ) from None
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(paths.controller_lock, blocking=False))
        except LockTakenError:
            holder = paths.controller_lock.read_text().strip() or "another process"
            raise BangerError(
                f"{holder} is the controller of {paths.state} already",
                hint="one is enough: `banger status` asks it, and `banger apply` gives it more to keep",
            ) from None
        paths.controller_lock.write_text(f"process {os.getpid()}\n")
        yield
