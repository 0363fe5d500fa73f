"""A strict client of the QEMU Machine Protocol (QEMU: docs/interop/qmp-spec.txt).

Why not the `qemu.qmp` package: it is asyncio throughout. Its synchronous wrapper puts no bound on connecting
and on the greeting (a stopped QEMU would hold the caller for ever), and needs an event loop in every thread
that uses it. What is needed here is one command at a time, from threads, under one deadline for everything.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.drivers.vmm import sockets
from reconciler.lib.errors import BangerError, ErrorClass

MAX_LINE = 1 << 20
"""Bytes. The largest answer used here is a few hundred; more than this is no QMP."""


class QmpError(BangerError):
    """QEMU could not be asked: no socket, no answer in time, or no QMP."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, error_class=ErrorClass.RETRYABLE)


class QmpCommandError(BangerError):
    """QEMU refused a command. `reason` is QMP's error class, such as `CommandNotFound`."""

    def __init__(self, command: str, reason: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.reason = reason


class Qmp:
    """One session, ready for commands. Not to be shared between threads.

    Parameters
    ----------
    path: the socket that QEMU listens on. QEMU serves one client at a time; others wait.
    seconds: for everything this session does, from connecting to the last answer.

    Raises QmpError.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._deadline = time.monotonic() + seconds
        self._pending = bytearray()
        self._next_id = 0
        try:
            self._socket = sockets.connect(path, seconds)
        except OSError as problem:
            raise QmpError(f"cannot connect to {path}: {problem.strerror or 'nobody answers'}") from None
        try:
            if "QMP" not in (greeting := self._message()):
                raise QmpError(f"{path} greets with {_short(greeting)}, which is no QMP")
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Runs a command and returns what QEMU returns. Raises QmpError and QmpCommandError."""
        self._next_id += 1
        request = {"execute": command, "arguments": arguments, "id": self._next_id}
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as problem:
            raise QmpError(f"cannot write to {self._path}: {problem.strerror or 'nobody reads'}") from None
        while True:
            answer = self._message()
            # Events come at any time. A parse error has no id (qmp-spec, section 2.4.2), and is ours.
            if "event" in answer or answer.get("id", self._next_id) != self._next_id:
                continue
            if "return" in answer:
                return answer["return"]
            error = answer.get("error")
            if not isinstance(error, dict):
                raise QmpError(f"{self._path} answers {command} with {_short(answer)}")
            raise QmpCommandError(command, str(error.get("class")), str(error.get("desc")))

    def monitor(self, line: str) -> str:
        """Runs a line of the human monitor and returns what it prints: for what QMP itself has no command.

        The human monitor has no error but text. Raises QmpError and QmpCommandError.
        """
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _message(self) -> dict[str, Any]:
        line = self._line()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise QmpError(f"{self._path} sends {_short(line)}, which is no JSON") from None
        if not isinstance(message, dict):
            raise QmpError(f"{self._path} sends {_short(message)}, which is no JSON object")
        return message

    def _line(self) -> bytes:
        while (end := self._pending.find(b"\n")) < 0:
            if len(self._pending) > MAX_LINE:
                raise QmpError(f"{self._path} sends a line of more than {MAX_LINE} bytes")
            try:
                self._socket.settimeout(self._left())
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise QmpError(f"{self._path} does not answer in time") from None
            except OSError as problem:
                raise QmpError(f"cannot read from {self._path}: {problem.strerror}") from None
            if not data:
                raise QmpError(f"{self._path} was closed by QEMU")
            self._pending += data
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QmpError(f"{self._path} does not answer in time")
        return left


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
