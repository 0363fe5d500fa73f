"""The far side of an agent's channel: a thread that answers as qemu-ga(8) does, or as a test has it answer."""

from __future__ import annotations

import base64
import json
import os
import select
import threading
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.lib.paths import VmPaths

Answer = Callable[[Mapping[str, Any]], bytes]


def returned(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


class FakeAgent:
    """Holds both pipes open, as a VMM does, and answers each line that comes. Not for hostile requests.

    Parameters
    ----------
    answers: what to answer to a command other than `guest-sync-delimited`; without an entry it is `{}`.
    """

    def __init__(self, paths: VmPaths, answers: Mapping[str, Answer] | None = None, *, silent: bool = False) -> None:
        self.paths = paths
        self.answers = dict(answers or {})
        self.silent = silent
        self.asked: list[str] = []
        paths.run.mkdir(parents=True, exist_ok=True)
        for path in (paths.agent_in, paths.agent_out):
            os.mkfifo(path)
        self._into = os.open(paths.agent_in, os.O_RDWR | os.O_NONBLOCK)
        self._out = os.open(paths.agent_out, os.O_RDWR)
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def say(self, data: bytes) -> None:
        """Sends what nobody asked for."""
        os.write(self._out, data)

    def stop(self) -> None:
        """The VMM ends."""
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join(10)
            assert not self._thread.is_alive(), "it is stuck in a write"
            for fd in (self._into, self._out, self._wake):
                os.close(fd)

    def _work(self) -> None:
        pending = b""
        poll = select.poll()
        # A silent agent leaves what was sent in the pipe.
        for fd in (self._wake,) if self.silent else (self._wake, self._into):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake in ready:
                return
            try:
                pending += os.read(self._into, 1 << 16)
            except BlockingIOError:
                continue
            *lines, pending = pending.split(b"\n")
            for line in lines:
                self._answer(json.loads(line.rpartition(b"\xff")[2]))

    def _answer(self, request: dict[str, Any]) -> None:
        command = request["execute"]
        if command == "guest-sync-delimited":
            self.say(b"\xff" + returned(request["arguments"]["id"]))
            return
        self.asked.append(command)
        answer = self.answers.get(command, lambda _: returned({}))(request.get("arguments", {}))
        if answer:
            self.say(answer)


def exited(code: int, out: bytes = b"", **more: object) -> bytes:
    """What `guest-exec-status` says of a program that has ended."""
    return returned({"exited": True, "exitcode": code, "out-data": base64.b64encode(out).decode(), **more})
