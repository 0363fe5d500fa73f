"""The API's server: HTTP over a Unix socket, on a thread of its own, which sleeps while nobody asks.

Only the owner of the state directory and root are answered. Who connects is known from the kernel (SO_PEERCRED,
unix(7)); everybody else is cut off before a byte is read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.api.metrics import Counters
from reconciler.api.service import Service
from reconciler.api.sockets import listening
from reconciler.helper.transport import peer_of
from reconciler.lib.errors import BangerError

if TYPE_CHECKING:
    from reconciler.api.broadcast import Broadcaster
    from reconciler.model.events import Event

# ruff: noqa: PLC0415  # the web server's libraries load with the first server

_SPARE_CONNECTIONS = 256
_HEADER_LIMIT = 32 << 10
# What is left once every connection is cut off takes no longer, in seconds.
_LAST_SECONDS = 1.0


class Server:
    """Serves one `Service` at one socket.

    Parameters
    ----------
    path: where the socket is to be; its folder is made if it is not there.
    uid: whose requests are answered, beside root's.
    counters: what `/metrics` shows of the controller.
    """

    def __init__(self, service: Service, path: Path, *, uid: int, counters: Counters | None = None) -> None:
        self._service = service
        self._path = path
        self._allowed = frozenset({0, uid})
        self._counters = counters or Counters()
        self._broadcaster: Broadcaster | None = None
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._grace = 0.0

    def start(self) -> None:
        """Listens and answers from now on. Raises BangerError if somebody else does, or the socket cannot be made."""
        try:
            listener = self._stack.enter_context(listening(self._path))
        except OSError as problem:
            raise BangerError(f"cannot listen at {self._path}: {problem.strerror}") from None
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(listener, started), name="api-loop", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._stack.close()
            raise

    def publish(self, event: Event) -> None:
        """Tells everybody who follows along. From any thread, once the event is in the store; never waits."""
        if self._broadcaster is not None:
            self._broadcaster.publish(event)

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the streams of events, and gives operations that have begun `timeout` seconds to end.

        An operation that takes longer goes on without its client.
        """
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        self._grace = timeout
        try:
            loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # it has ended already
        thread.join(timeout + 5.0)
        self._thread = None
        self._stack.close()

    def _end(self) -> None:
        if self._broadcaster is not None:
            self._broadcaster.close()
        if self._ended is not None:
            self._ended.set()

    def _run(self, listener: socket.socket, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(listener, started))
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
                return
            raise

    async def _serve(self, listener: socket.socket, started: Future[None]) -> None:
        import uvicorn

        from reconciler.api.app import CHANGES, READERS, WAITS, Api
        from reconciler.api.broadcast import Broadcaster

        self._loop = asyncio.get_running_loop()
        self._ended = ended = asyncio.Event()
        self._broadcaster = Broadcaster(self._loop)
        api = Api(self._service, self._counters, self._broadcaster)
        owner = self
        closed = asyncio.Event()

        class Quiet(uvicorn.Server):
            """uvicorn's own loops wake ten times a second, for a date header and to see whether it is over."""

            async def main_loop(self) -> None:
                await self.on_tick(0)
                started.set_result(None)
                await ended.wait()

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                for server in self.servers:
                    server.close()
                connections = self.server_state.connections
                for connection in list(connections):
                    connection.shutdown()
                try:
                    async with asyncio.timeout(owner._grace):
                        while connections:
                            closed.clear()
                            await closed.wait()
                except TimeoutError:
                    for connection in list(connections):
                        connection.transport.abort()
                if tasks := list(self.server_state.tasks):
                    await asyncio.wait(tasks, timeout=_LAST_SECONDS)

        config = uvicorn.Config(
            api.application(),
            http=_protocol(self._allowed, closed),
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=READERS + CHANGES + WAITS + _SPARE_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADER_LIMIT,
        )
        try:
            await Quiet(config).serve(sockets=[listener])
        finally:
            api.close()


def _protocol(allowed: frozenset[int], closed: asyncio.Event) -> type[asyncio.Protocol]:
    """uvicorn's protocol for those who may ask; `closed` is set whenever a connection has ended."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from reconciler.api.broadcast import PIECE

    class Checked(H11Protocol):
        _refused = False

        def connection_made(self, transport: Any) -> None:
            if peer_of(transport.get_extra_info("socket")).uid not in allowed:
                self._refused = True
                transport.abort()
                return
            # What is written but not read lies here once for each client.
            transport.set_write_buffer_limits(high=PIECE)
            # For answers that nobody takes: streams.EventStream.
            self.app_state = {**self.app_state, "abort": transport.abort}
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if not self._refused:
                super().connection_lost(exc)
                closed.set()

    return Checked
