"""One event for many readers: whoever publishes waits for none of them, and whoever is slow is let go.

Everything but `publish` belongs to the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from reconciler.model.events import Event

QUEUED = 256
HEARTBEAT_SECONDS = 15.0
# How much is sent in one piece, in bytes: what a client does not read lies here once for each of them.
PIECE = 16 << 10
# How many events are handed out before the readers get a turn to send theirs.
_AT_ONCE = 16
# How many may wait to be handed out. Beyond that everybody is let go, and reads them from the store.
_WAITING = 10_000
# A comment (HTML standard, server-sent events): it keeps the connection from looking dead.
HEARTBEAT = b": still here\n\n"


def frame(event: str, data: Mapping[str, Any], id: int | None = None) -> bytes:
    """One server-sent event. JSON has no line breaks of its own, so one `data:` line holds it."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Mailbox:
    """What waits to be sent to one client, oldest first.

    Parameters
    ----------
    limit: how many frames may wait, None for any number.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._frames: deque[bytes] = deque()
        self._limit = limit
        self._filled = asyncio.Event()
        self.closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, data: bytes) -> bool:
        """False if it is full or closed; then nothing was added."""
        if self.closed or (self._limit is not None and len(self._frames) >= self._limit):
            return False
        self._frames.append(data)
        self._filled.set()
        return True

    def close(self, last: bytes | None = None) -> None:
        """Nothing more comes but `last`; what waits is still sent."""
        if not self.closed and last is not None:
            self._frames.append(last)
        self.closed = True
        self._filled.set()

    def drop(self) -> None:
        """The client has gone: what waits is waste."""
        self._frames.clear()
        self.close()

    async def get(self) -> bytes | None:
        """The next piece; None when nothing more will come."""
        while not self._frames:
            if self.closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        data = bytearray(self._frames.popleft())
        while self._frames and len(data) + len(self._frames[0]) <= PIECE:
            data += self._frames.popleft()
        return bytes(data)


class Reader:
    """One client that follows the events of one environment, or of all.

    Parameters
    ----------
    after: the id of the event after which it wants to read; None if it did not say.
    """

    def __init__(self, environment: str | None, after: int | None, limit: int) -> None:
        self.environment = environment
        self.mailbox = Mailbox(limit)
        self.last = after
        """The newest event that was put into the mailbox."""
        self.past = 0
        """The newest event that was read from the store."""
        self.held: list[Event] | None = []
        """What came while the past was being read; None from then on."""


class Broadcaster:
    """Hands each event to every reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, queued: int = QUEUED) -> None:
        self._loop = loop
        self._queued = queued
        self._readers: set[Reader] = set()
        self._news: deque[Event] = deque()
        self._awake = False
        self._beat: asyncio.TimerHandle | None = None

    def publish(self, event: Event) -> None:
        """From any thread, after the event can be read from the store. Never waits."""
        if not self._readers:
            return  # who joins now reads it from the store
        self._news.append(event)
        if not self._awake:
            self._awake = True
            try:
                self._loop.call_soon_threadsafe(self._hand_out)
            except RuntimeError:
                pass  # the loop has ended, and all readers with it

    def join(self, environment: str | None, after: int | None) -> Reader:
        """A reader from now on. What comes is held back until `begin` tells where the past has ended."""
        reader = Reader(environment, after, self._queued)
        self._readers.add(reader)
        if self._beat is None:
            self._beat = self._loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)
        return reader

    def begin(self, reader: Reader, past: list[Event]) -> None:
        """Hands over the past, however long, and then what came meanwhile: none twice, none missing."""
        held, reader.held = reader.held or [], None
        # As one frame: the past is no sign of a slow reader.
        if past:
            reader.past = reader.last = past[-1].id
            reader.mailbox.put(b"".join(map(_event_frame, past)))
        for event in held:
            self._put(reader, event, _event_frame(event))

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)
        reader.mailbox.drop()
        if not self._readers and self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def close(self) -> None:
        """The end of every stream, once what waits is sent."""
        for reader in list(self._readers):
            reader.mailbox.close()

    def __len__(self) -> int:
        return len(self._readers)

    def _hand_out(self) -> None:
        if len(self._news) > _WAITING:
            self._news.clear()
            for reader in list(self._readers):
                self._lose(reader)
        for _ in range(min(_AT_ONCE, len(self._news))):
            self._deliver(self._news.popleft())
        # Before the queue is looked at: what is published from here on wakes the loop, or is seen now.
        self._awake = False
        if self._news:
            self._awake = True
            self._loop.call_soon(self._hand_out)

    def _deliver(self, event: Event) -> None:
        data = _event_frame(event)
        for reader in list(self._readers):
            if reader.environment in (None, event.environment):
                self._put(reader, event, data)

    def _put(self, reader: Reader, event: Event, data: bytes) -> None:
        if reader.held is not None:
            # The past is read from the store within moments; nobody can hold more than that.
            reader.held.append(event)
            if len(reader.held) > self._queued:
                self._lose(reader)
        elif event.id > reader.past:
            if reader.mailbox.put(data):
                reader.last = event.id
            elif not reader.mailbox.closed:
                self._lose(reader)

    def _lose(self, reader: Reader) -> None:
        self._readers.discard(reader)
        reader.mailbox.close(frame("lost", {"after": reader.last}))

    def _heartbeat(self) -> None:
        for reader in self._readers:
            if not reader.mailbox:
                reader.mailbox.put(HEARTBEAT)
        self._beat = self._loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)


def _event_frame(event: Event) -> bytes:
    return frame("event", event.to_json(), event.id)
