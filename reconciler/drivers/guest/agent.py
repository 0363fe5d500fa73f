"""What a guest's agent can be asked: qemu-ga(8), by the QEMU Guest Agent protocol reference.

It needs no network, and no ssh server in the guest. Programs run as root, with the agent's environment and folder (`/`).

    agent = Agent(paths.vm("demo", "web"))
    done = agent.run(["sh", "-c", "cat; exit 3"], input=b"hello", seconds=30)
    done.code, done.stdout            # 3, b"hello"

What takes longer, or has more to say than 16 MiB, is begun by `start` and followed by `status`; files are moved in
pieces by `read_file` and `write_file`. An `Agent` holds nothing open: it may be used from several threads and
processes, whose requests take turns (`channel`), each at most as long as the guest takes for one answer. A program that
runs holds no turn.

The guest is not trusted: answers are bounded in size and time, and values that are not of the expected kind are errors.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reconciler.drivers.guest import channel
from reconciler.drivers.guest.channel import AgentError, NoChannelError
from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.paths import VmPaths

__all__ = ["Agent", "AgentError", "Finished", "NoChannelError", "RefusedError"]

ANSWER_SECONDS = 10.0
"""For one exchange, the turn included. A small guest on a crowded host needs a second."""
CHUNK = 1 << 20
"""Bytes that one request carries of a file or of an input."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


class RefusedError(BangerError):
    """The agent answered, and will not: a program or a file that is not there, a command that it does not know.

    `reason` is the protocol's error class, `description` the agent's own words.
    """

    def __init__(self, command: str, reason: str, description: str) -> None:
        super().__init__(f"the guest's agent refuses {command}: {description}")
        self.reason = reason
        self.description = description


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that has ended.

    Parameters
    ----------
    code: its exit code; 128 and the number for one that a signal ended, as shells say it.
    truncated: it wrote more than the agent keeps, which is 16 MiB of each output.
    """

    code: int
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


class Agent:
    """The agent of one VM. Making one asks nothing.

    Parameters
    ----------
    seconds: for each exchange, unless a call says otherwise.

    Every method raises AgentError (retryable) if the agent does not answer, NoChannelError if the VM has no channel to
    one, RefusedError if it answers with an error.
    """

    def __init__(self, paths: VmPaths, seconds: float = ANSWER_SECONDS) -> None:
        self._paths = paths
        self._seconds = seconds

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None, *, seconds: float | None = None) -> Any:
        """Has the agent do one command of its protocol and returns what it returns."""
        request: dict[str, Any] = {"execute": command, "arguments": dict(arguments or {})}
        answer = channel.exchange(self._paths, request, self._seconds if seconds is None else seconds)
        if "return" in answer:
            return answer["return"]
        error = answer.get("error")
        if not isinstance(error, dict):
            raise _nonsense(command)
        raise RefusedError(command, str(error.get("class")), " ".join(str(error.get("desc"))[:500].split()))

    def ping(self, seconds: float | None = None) -> bool:
        """Whether there is an agent that answers."""
        try:
            self.ask("guest-ping", seconds=seconds)
        except (AgentError, RefusedError):
            return False
        return True

    def shut_down(self, seconds: float | None = None) -> bool:
        """Asks the guest to switch itself off, and returns whether it was there to be asked. Waits for no more.

        A guest without a program `shutdown` does nothing of the kind.
        """
        request = {"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}
        try:
            # Only a failure would be answered.
            channel.exchange(self._paths, request, self._seconds if seconds is None else seconds, answered=False)
        except AgentError:
            return False
        return True

    def start(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # as subprocess.run has it
        env: Mapping[str, str] | None = None,
        capture: bool = True,
    ) -> int:
        """Starts a program and returns its process id there, which `status` takes.

        Parameters
        ----------
        argv: program and arguments; the program is looked for in the agent's PATH.
        input: all that it gets to read.
        env: its whole environment; None for the agent's own.
        capture: whether to keep what it writes, up to 16 MiB of each output.
        """
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": capture}
        if input:
            arguments["input-data"] = base64.b64encode(input).decode()
        if env is not None:
            arguments["env"] = [f"{name}={value}" for name, value in env.items()]
        return _number(self.ask("guest-exec", arguments), "pid", "guest-exec")

    def status(self, pid: int) -> Finished | None:
        """How a program that `start` began has ended; None while it runs. That it has ended is told once."""
        answer = self.ask("guest-exec-status", {"pid": pid})
        if not isinstance(answer, dict):
            raise _nonsense("guest-exec-status")
        if not answer.get("exited"):
            return None
        code = answer.get("exitcode")
        if code is None:
            code = 128 + _number(answer, "signal", "guest-exec-status")
        return Finished(
            code=_number({"code": code}, "code", "guest-exec-status"),
            stdout=_bytes(answer.get("out-data", "")),
            stderr=_bytes(answer.get("err-data", "")),
            truncated=bool(answer.get("out-truncated") or answer.get("err-truncated")),
        )

    def run(
        self, argv: Sequence[str], *, input: bytes = b"", env: Mapping[str, str] | None = None, seconds: float
    ) -> Finished:
        """Runs a program to its end, for at most `seconds`.

        After that it raises AgentError, and the program goes on: the agent has no means to end it.
        """
        deadline = time.monotonic() + seconds
        pid = self.start(argv, input=input, env=env)
        pause = _FIRST_PAUSE
        while (finished := self.status(pid)) is None:
            if cancel.cancelled():
                raise CancelledError
            left = deadline - time.monotonic()
            if left <= 0:
                raise AgentError(f"{argv[0]} still runs in the guest after {seconds:g} s, as process {pid}")
            cancel.pause(min(pause, left))
            pause = min(_LONGEST_PAUSE, 2 * pause)
        return finished

    def open_file(self, path: str, mode: str) -> int:
        """Opens a file of the guest (fopen(3) has the modes), for `read_some`, until `close_file`."""
        return _number(
            {"handle": self.ask("guest-file-open", {"path": path, "mode": mode})}, "handle", "guest-file-open"
        )

    def close_file(self, handle: int) -> None:
        self.ask("guest-file-close", {"handle": handle})

    def read_some(self, handle: int) -> bytes:
        """What comes next of an open file, at most CHUNK bytes; nothing at its end, which may be further on later."""
        answer = self.ask("guest-file-read", {"handle": handle, "count": CHUNK})
        return _bytes(answer.get("buf-b64", "")) if isinstance(answer, dict) else b""

    def read_file(self, path: str, sink: Callable[[bytes], object], *, limit: int | None = None) -> int:
        """Hands a file of the guest to `sink`, piece by piece, and returns how many bytes it had.

        Raises AgentError, not retryable in vain, once there are more than `limit` bytes.
        """
        count = 0
        with self._opened(path, "r") as handle:
            while True:
                data = self.read_some(handle)
                count += len(data)
                if limit is not None and count > limit:
                    raise AgentError(f"{path} in the guest has more than {limit} bytes")
                sink(data)
                if not data:
                    return count

    def write_file(self, path: str, pieces: Sequence[bytes] | Iterator[bytes], *, append: bool = False) -> int:
        """Writes a file of the guest, as root with the agent's umask, and returns how many bytes it wrote."""
        count = 0
        with self._opened(path, "a" if append else "w") as handle:
            for piece in pieces:
                for start in range(0, len(piece), CHUNK):
                    data = piece[start : start + CHUNK]
                    arguments = {"handle": handle, "buf-b64": base64.b64encode(data).decode()}
                    written = _number(self.ask("guest-file-write", arguments), "count", "guest-file-write")
                    if written != len(data):
                        raise AgentError(f"the guest wrote {written} of {len(data)} bytes to {path}")
                    count += written
            self.ask("guest-file-flush", {"handle": handle})
        return count

    @contextmanager
    def _opened(self, path: str, mode: str) -> Iterator[int]:
        handle = self.open_file(path, mode)
        try:
            yield handle
        finally:
            # The agent keeps a file open until it is told otherwise; one that is gone keeps nothing.
            try:
                self.close_file(handle)
            except AgentError:
                pass


def _number(answer: Any, key: str, command: str) -> int:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _nonsense(command)
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise AgentError("the guest's agent sends what is not base64") from None


def _nonsense(command: str) -> AgentError:
    return AgentError(f"the guest's agent answers {command} with something else")
