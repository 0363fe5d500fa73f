"""From the bytes of a watched file to a new generation of its environment, or to a problem that is told and kept.

A file that is missing, broken or claims what another file has changes nothing (I2): its environment stays at the
last good generation, and the problem is shown until the file is good again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reconciler.daemon.engine import Engine
from reconciler.lib.errors import BangerError
from reconciler.lib.log import Log
from reconciler.model.desired import DesiredState
from reconciler.sources.file import Content
from reconciler.spec import SpecError, load_beside
from reconciler.store.control import ControlState, SourceRow
from reconciler.store.events import EventLog
from reconciler.store.inventory import EnvironmentRow


class Specs:
    """Takes what the sources bring, each from a thread of its own.

    Parameters
    ----------
    adopted: called with the environment whose last good generation is now another one.
    told: called after every change of what is known of a file.
    """

    def __init__(self, engine: Engine, log: Log, adopted: Callable[[str], None], told: Callable[[], None]) -> None:
        self._engine = engine
        self._control = ControlState(engine.database)
        self._events = EventLog(engine.database, engine.clock)
        self._log = log
        self._adopted = adopted
        self._told = told
        self._lock = threading.Lock()
        self._desired: dict[Path, DesiredState] = {}
        self._claims: dict[Path, str] = {}
        """Which environment each file that is there describes, or described when it was good last."""

    def take(self, content: Content) -> None:
        """A file's new content, whole, or why it has none."""
        with self._lock:
            self._take(content)

    def _take(self, content: Content) -> None:
        if content.data is None or content.digest is None:
            self._claims.pop(content.path, None)
            self._problem(content.path, f"{content.path} {content.problem}")
            return
        if known := self._row(content.path):
            self._claims.setdefault(content.path, known.environment or "")
        try:
            loaded = load_beside(content.data, content.path)
            self._free(content.path, loaded.desired.environment)
            self._adopt(content.path, loaded.desired, loaded.digest)
        except SpecError as error:
            self._problem(content.path, error.cause)
        except BangerError as error:
            self._problem(content.path, f"{content.path}: {error.cause}")

    def of_file(self, path: Path) -> DesiredState | None:
        """What the controller itself last read from a file."""
        return self._desired.get(path)

    def keeper(self, environment: str) -> Path | None:
        """The watched file that the environment comes from, if there is one."""
        return next((path for path, name in self._claims.items() if name == environment), None)

    def _free(self, path: Path, environment: str) -> None:
        keeper = self.keeper(environment)
        if keeper not in (None, path):
            raise BangerError(f"name: environment {environment} is what {keeper} describes; give it another name")

    def _row(self, path: Path) -> SourceRow | None:
        return next((row for row in self._control.sources() if row.path == str(path)), None)

    def _adopt(self, path: Path, desired: DesiredState, digest: str) -> None:
        name = desired.environment
        before = self._desired.get(path)
        if before is not None and before.environment != name:
            self._warn(
                before.environment,
                "Orphaned",
                f"{path} no longer describes it, but {name}; it stays as it is until `banger delete {before.environment}`",
            )
        self._desired[path] = desired
        self._claims[path] = name
        inventory = self._engine.inventory()
        old = inventory.environment(name)
        known = self._row(path)
        if known is None or known.problem is not None or known.environment != name:
            now = self._engine.clock.now()
            self._control.put_source(SourceRow(path=str(path), environment=name, problem=None, since=now))
        if old is None or (old.desired, old.source) != (desired, str(path)):
            inventory.put_environment(
                EnvironmentRow(
                    name=name, source=str(path), digest=digest, desired=desired, applied_at=self._engine.clock.now()
                )
            )
            row = inventory.environment(name)
            generation = row.generation if row is not None else 0
            if old is None or row is None or row.generation != old.generation:
                self._events.append(name, f"environment/{name}", "Edited", f"{path} asks for generation {generation}")
                self._log.info("new generation", environment=name, generation=generation, file=str(path))
        # Also without a difference: a controller that has just started looks at everything that it keeps.
        self._adopted(name)
        self._told()

    def _problem(self, path: Path, problem: str) -> None:
        known = self._row(path)
        if known is not None and known.problem == problem:
            return
        now = self._engine.clock.now()
        if known is None:
            known = SourceRow(path=str(path), environment=None, problem=None, since=now)
        self._control.put_source(replace(known, problem=problem, since=now))
        self._warn(known.environment or "", "InvalidSpec", f"kept as it was: {problem}")
        self._told()

    def _warn(self, environment: str, reason: str, message: str) -> None:
        self._events.append(environment, f"environment/{environment}", reason, message, warning=True)
        self._log.warning(message, environment=environment)
