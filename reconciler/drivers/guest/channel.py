"""The wire to a guest's agent: two named pipes of the VMM, which lead to a port of virtio-serial in the guest.

Pipes and not a socket, because the VMM holds both of their ends open for as long as it runs. To the guest somebody is
then always at the other side, and its agent sleeps until a byte comes. With a socket to which nobody is connected, the
agent looks ten times a second whether that is still so (QEMU: qga/main.c, channel_event_cb).

There is one stream, so callers take turns, in one process or several: each exchange is made under a kernel lock, which
the kernel lets go however its holder ends. An exchange begins by clearing away what an earlier one, which may have been
killed in its middle, left in either pipe, and by a mark that the guest sends back before its answer
(`guest-sync-delimited` in the QEMU Guest Agent protocol reference).
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reconciler.lib import cancel
from reconciler.lib.atomic import LockTakenError, exclusive
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.paths import VmPaths

MAX_ANSWER = 48 << 20
"""Bytes. An agent answers with up to 16 MiB of each of a program's two outputs, in base64 (QEMU: qga/commands.c)."""

_MARK = b"\xff"
_CHUNK = 1 << 16
_LOOK_SECONDS = 0.25
_TURN_SECONDS = 0.01


class AgentError(BangerError):
    """The agent could not be asked: no channel, no turn, no answer in time, or none that makes sense."""

    def __init__(self, cause: str, *, hint: str | None = None, error_class: ErrorClass = ErrorClass.RETRYABLE) -> None:
        super().__init__(cause, hint=hint, error_class=error_class)


class NoChannelError(AgentError):
    """The VM does not run, or was started by a banger that gave it no channel."""


def exchange(paths: VmPaths, request: dict[str, Any], seconds: float, *, answered: bool = True) -> dict[str, Any]:
    """Sends one request to the agent and returns its answer, both whole.

    Parameters
    ----------
    seconds: for everything: the turn, the request and the answer.
    answered: False for a request that has no answer; an agent that is there is waited for even so.

    Raises AgentError, and CancelledError if banger is to end meanwhile.
    """
    deadline = time.monotonic() + seconds
    if not paths.agent_in.exists():
        raise NoChannelError(
            "the VM has no channel to an agent", hint="it does not run, or was started by an older banger: restart it"
        )
    with ExitStack() as stack:
        stack.enter_context(_turn(paths.agent_lock, deadline))
        into = stack.enter_context(_opened(paths.agent_in, os.O_WRONLY))
        out = stack.enter_context(_opened(paths.agent_out, os.O_RDONLY))
        _drain(out)
        with _opened(paths.agent_in, os.O_RDONLY) as stale:
            _drain(stale)
        mark = int.from_bytes(os.urandom(4)) >> 1
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": mark}}
        # The mark in front makes the agent forget the half of a request that it may have got (QEMU: qga/qapi-schema.json).
        _write(into, _MARK + _line(sync) + _line(request), deadline)
        reader = _Reader(out, deadline)
        reader.skip_to({"return": mark})
        return reader.message() if answered else {}


@contextmanager
def _turn(lock: Path, deadline: float) -> Iterator[None]:
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(lock, blocking=False))
                break
            except LockTakenError:
                if time.monotonic() >= deadline:
                    raise AgentError("the guest's agent is busy with somebody else's request") from None
                _pause(_TURN_SECONDS)
            except OSError as problem:
                raise NoChannelError(f"cannot ask the guest's agent: {problem.strerror}: {lock}") from None
        yield


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        # ENXIO: nobody has the pipe open for reading (fifo(7)).
        raise NoChannelError(f"the VM's channel to its agent is closed: {problem.strerror}: {path}") from None
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise NoChannelError(f"{path} is no named pipe", error_class=ErrorClass.TERMINAL)
        yield fd
    finally:
        os.close(fd)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _drain(fd: int) -> None:
    try:
        while os.read(fd, _CHUNK):
            pass
    except BlockingIOError:
        pass


def _write(fd: int, data: bytes, deadline: float) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest[:_CHUNK]) :]
        except BlockingIOError:
            _await(fd, select.POLLOUT, deadline)
        except BrokenPipeError:
            raise NoChannelError("the VM ended while its agent was asked") from None


def _await(fd: int, event: int, deadline: float) -> None:
    """Returns when the pipe is ready. In short steps, so that a cancellation is seen."""
    poll = select.poll()
    poll.register(fd, event)
    while not poll.poll(1000 * min(_LOOK_SECONDS, _left(deadline))):
        _pause(0)


def _pause(seconds: float) -> None:
    if cancel.cancelled():
        raise CancelledError
    if seconds:
        cancel.pause(seconds)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise AgentError("the guest's agent does not answer in time")
    return left


class _Reader:
    """Messages from the guest, whose every byte is doubtful."""

    def __init__(self, fd: int, deadline: float) -> None:
        self._fd = fd
        self._deadline = deadline
        self._pending = bytearray()
        self._received = 0

    def skip_to(self, wanted: dict[str, Any]) -> None:
        """Passes over everything up to the message, which has a mark of its own before it."""
        while True:
            line = self._line()
            if _MARK not in line:
                continue
            try:
                if json.loads(line.rpartition(_MARK)[2]) == wanted:
                    return
            except (ValueError, RecursionError):
                continue

    def message(self) -> dict[str, Any]:
        line = self._line()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise AgentError(f"the guest's agent sends {bytes(line[:80])!r}, which is no JSON") from None
        if not isinstance(message, dict):
            raise AgentError(f"the guest's agent sends {bytes(line[:80])!r}, which is no JSON object")
        return message

    def _line(self) -> bytearray:
        searched = 0
        while (end := self._pending.find(b"\n", searched)) < 0:
            searched = len(self._pending)
            if self._received > MAX_ANSWER:
                raise AgentError(f"the guest's agent sends more than {MAX_ANSWER} bytes")
            _await(self._fd, select.POLLIN, self._deadline)
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                continue
            if not data:
                raise NoChannelError("the VM ended while its agent was asked")
            self._pending += data
            self._received += len(data)
        line = self._pending[:end]
        del self._pending[: end + 1]
        return line
