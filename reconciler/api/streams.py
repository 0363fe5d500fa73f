"""Answers that go on: server-sent events to a client that may be slow, or gone.

Work goes on without its client: what it tells is then thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from reconciler.api.broadcast import HEARTBEAT, HEARTBEAT_SECONDS, Mailbox, frame
from reconciler.api.forms import listing
from reconciler.api.plan_forms import outcome_to, step_to
from reconciler.api.problems import to_problem
from reconciler.lib.errors import CancelledError
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Step
from reconciler.model.status import ObjectStatus

# How long a client may read nothing at all, in seconds.
STALLED_SECONDS = 60.0
# From here on a client hears of beginnings and ends only, until it has caught up.
_MANY = 256


class EventStream:
    """An ASGI answer that sends a mailbox until it is closed, or until the client goes.

    Parameters
    ----------
    beat: whether to send a heartbeat when nothing else is sent; else somebody puts them into the mailbox.
    """

    def __init__(self, mailbox: Mailbox, headers: dict[str, str], *, beat: bool) -> None:
        self._mailbox = mailbox
        self._beat = HEARTBEAT_SECONDS if beat else None
        given = {"content-type": "text/event-stream", "cache-control": "no-store", **headers}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in given.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(self._watch(receive))
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            while (data := await self._next()) is not None:
                async with asyncio.timeout(STALLED_SECONDS):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            if not gone.done():
                async with asyncio.timeout(STALLED_SECONDS):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # Not closed but cut off: closing would wait until the client has read what it does not read.
            scope["state"]["abort"]()
        finally:
            gone.cancel()
            self._mailbox.drop()

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._beat):
                return await self._mailbox.get()
        except TimeoutError:
            return HEARTBEAT

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._mailbox.drop()


class StreamReporter:
    """Tells one client what an operation does. Called from its threads, one at a time.

    Parameters
    ----------
    abandon: whether the work ends (with CancelledError) once the client has gone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, mailbox: Mailbox, *, abandon: bool) -> None:
        self._loop = loop
        self._mailbox = mailbox
        self._abandon = abandon
        self._named: dict[str, Step] = {}

    def started(self, step: Step) -> None:
        self._tell("started", self._name(step))

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        if len(self._mailbox) < _MANY:
            self._tell("progress", {**self._name(step), "fraction": fraction, "message": message})

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        self._tell("retrying", {**self._name(step), "error": to_problem(error), "delay": delay})

    def finished(self, step: Step, outcome: Outcome) -> None:
        self._tell("finished", {**self._name(step), "outcome": outcome_to(outcome)})

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        self._tell("waiting", listing([vm.to_json() for vm in vms]))

    def note(self, message: str) -> None:
        self._tell("note", {"message": message})

    def result(self, data: Any) -> None:
        self._post(frame("result", data), last=True)

    def error(self, error: Exception) -> None:
        self._post(frame("error", to_problem(error)), last=True)

    def _name(self, step: Step) -> dict[str, Any]:
        """A step by its id, and all of it when the client does not know it as it is."""
        if self._named.get(step.id) == step:
            return {"id": step.id}
        self._named[step.id] = step
        return {"id": step.id, "step": step_to(step)}

    def _tell(self, event: str, data: dict[str, Any]) -> None:
        if self._mailbox.closed:
            if self._abandon:
                raise CancelledError
            return
        self._post(frame(event, data))

    def _post(self, data: bytes, *, last: bool = False) -> None:
        try:
            self._loop.call_soon_threadsafe(self._mailbox.close if last else self._mailbox.put, data)
        except RuntimeError:
            pass  # the server has ended, and the client with it; the work is done all the same
