"""A controller of a test's home: started, waited for, ended."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host.home import Home

PATIENCE = 120.0


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Waits for what other processes do."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


@dataclass
class Controller:
    """`banger controller` of one home."""

    home: Home
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def controller(home: Home, *words: str, extra: dict[str, str] | None = None) -> Iterator[Controller]:
    """Runs one until the block ends; it serves its API when the block begins."""
    log = home.root / "controller.log"
    with log.open("ab") as stderr:
        begins = stderr.tell()
        process = subprocess.Popen(
            home.argv("controller", "--log-format", "json", *words),
            env={**home.env, **(extra or {})},
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    running = Controller(home, process, log)

    def up() -> bool:
        assert process.poll() is None, log.read_bytes()[begins:].decode()
        return b'"keeping"' in log.read_bytes()[begins:]

    try:
        until(up, "the controller's start")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
