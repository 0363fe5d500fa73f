"""One opened state directory: the database, the writer's lock, and the tools of an operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from reconciler.daemon.helper import SharedHelper
from reconciler.lib.clock import Clock
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory

if TYPE_CHECKING:
    from reconciler.daemon.drivers import Shared
    from reconciler.execute.tools import Tools
    from reconciler.model.desired import DesiredState
    from reconciler.model.observed import ObservedState, Unknown
    from reconciler.model.retention import ObservedCache
    from reconciler.store.journal import Journal
    from reconciler.store.retention import RetentionState

Exclusive = Callable[[str, frozenset[str] | None], AbstractContextManager[None]]

# ruff: noqa: PLC0415  # `ps` reads the inventory and /proc; what else there is, is imported by who needs it


class Engine:
    """Opens what is there; only the holder of the writer lock creates what is not."""

    def __init__(self, paths: Paths, clock: Clock) -> None:
        self.paths = paths
        self.clock = clock
        self._database: Database | None = None
        self._shared: Shared | None = None
        self._held = False
        self.helper = SharedHelper(paths)
        self.exclusive: Exclusive | None = None
        """Set by a controller: shuts its wheel out of these objects (None: all) of an environment."""

    @property
    def database(self) -> Database:
        """Raises BangerError where there is no state yet."""
        return self._open(create=False)

    @property
    def exists(self) -> bool:
        """Whether there is a state to read; not in a file whose maker was killed before anything was in it."""
        if self._database is None and not self.paths.database.exists():
            return False
        return self._open(create=False).version > 0

    def inventory(self) -> Inventory:
        """For reading, and inside `writing` for changing. Raises BangerError where there is no state yet."""
        return Inventory(self._open(create=False))

    def journal(self, operation: str = "") -> Journal:
        from reconciler.store.journal import Journal

        return Journal(self._open(create=False), self.clock, operation)

    def observe(self, environment: str, desired: DesiredState | None = None) -> ObservedState:
        """The environment as it is now; an empty world where there is no state directory yet."""
        from reconciler.observe.snapshot import observe, observe_unborn

        if not self.exists:
            return observe_unborn(environment, self.paths, desired)
        seen = observe(environment, self.inventory(), self.paths, self.helper.read_filter, desired)
        if desired is None or desired.cache is None:
            return seen
        return dataclasses.replace(seen, cache=self.observe_cache())

    def observe_cache(self) -> ObservedCache | Unknown:
        """The cache and the trash, and what needs what of them. Raises BangerError where there is no state yet."""
        from reconciler.observe.cache import observe_cache

        return observe_cache(self.inventory(), self.retention(), self.paths, self.clock.now(), self._pinned)

    def retention(self) -> RetentionState:
        """Pins, and what went lately; for writing inside `writing`."""
        from reconciler.store.retention import RetentionState

        return RetentionState(self._open(create=False))

    @contextmanager
    def writing(
        self, on_wait: Callable[[str], None], environment: str | None = None, objects: frozenset[str] | None = None
    ) -> Iterator[None]:
        """Makes this process the one writer of the state directory; waits for another one, and says so.

        Inside `held` the process is that already, and `exclusive` sees to it that nobody else in it changes the same.
        """
        if self._held:
            with ExitStack() as stack:
                if environment is not None and self.exclusive is not None:
                    stack.enter_context(self.exclusive(environment, objects))
                stack.callback(self.tell_ssh, on_wait)
                stack.callback(self.keep_consoles)
                yield
            return
        try:
            # Guests' disks and keys lie below: nobody else's business.
            self.paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise BangerError(
                f"cannot create {self.paths.state}: {problem.strerror}",
                hint="set BANGER_HOME to a folder of yours",
            ) from None
        from reconciler.lib.atomic import LockTakenError, exclusive

        with ExitStack() as stack:
            what = str(self.paths.state)
            try:
                stack.enter_context(exclusive(self.paths.writer_lock, blocking=False, what=what))
            except LockTakenError:
                on_wait(f"another banger is changing {what}; waiting for it to finish")
                stack.enter_context(exclusive(self.paths.writer_lock, what=what))
            self._open(create=True)
            stack.callback(self.tell_ssh, on_wait)
            stack.callback(self.keep_consoles)
            yield

    def tell_ssh(self, note: Callable[[str], None]) -> None:
        """What was changed about VMs, where the user's own ssh is to know them. The change itself stands in any case."""
        if not self.paths.ssh_config.exists():
            return
        from reconciler.daemon.sshconfig import refresh

        try:
            refresh(self.paths, self.inventory())
        except BangerError as error:
            note(f"{self.paths.ssh_config} is not up to date: {error.cause}")

    def keep_consoles(self) -> None:
        """Brings back the keeper of console logs, if VMs run without: somebody killed it."""
        from reconciler.drivers.vmm import keeper

        keeper.ensure(self.inventory().install, self.paths.consoles)

    @contextmanager
    def held(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """`writing` for as long as the block lasts, for every thread of the process."""
        with self.writing(on_wait):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def tools(self, environment: str, operation: str) -> Tools:
        """The drivers for one operation, which its records and the helper's audit name."""
        from reconciler.daemon.drivers import Shared, make_tools

        if self._shared is None:
            self._shared = Shared.create(self.clock, self.helper.client, self.paths)
        tools = make_tools(environment, self.paths, self.inventory(), self.journal(operation), self._shared)
        return dataclasses.replace(tools, retention=self.retention(), roots=self.roots)

    def roots(self) -> Mapping[str, str]:
        """What of the cache and the trash is needed now, and by what."""
        from reconciler.observe.cache import find_roots

        return find_roots(self.inventory(), self.retention(), self.paths, self._pinned)

    def _pinned(self, desired: DesiredState) -> DesiredState:
        from reconciler.daemon.pinning import by_memory

        return by_memory(self.paths, desired)

    def close(self) -> None:
        self.helper.close()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self, *, create: bool) -> Database:
        if self._database is None:
            self._database = Database(self.paths.database, create=create)
        elif create:
            self._database.migrate()  # it was opened for reading
        return self._database
