"""The way to the root helper: root starts its own, everybody else connects to the one that systemd starts."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import reconciler
from reconciler.helper.client import Connection, HelperClient
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import HELPER_SOCKET, Paths
from reconciler.lib.run import spawn

_NEEDED = "network needs the root helper"
_SETUP = "run with sudo; or once, as root, `systemctl enable --now banger-helper.socket`; or use `network: user`"
_MAX_LOG = 8 * 1024 * 1024
_CONNECT_SECONDS = 15.0

# Isolated mode ignores the environment and the user's site; -S keeps site-packages out too. The one folder added is
# the one that this very package was loaded from, at the end, where it shadows nothing of the standard library.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from reconciler.helper.__main__ import run; run()"


@dataclass(frozen=True, slots=True)
class _Dialled:
    """A connection to a helper that systemd runs."""

    socket: socket.socket

    def close(self) -> None:
        self.socket.close()


class _Process(Protocol):
    """What is used of a child."""

    def kill(self) -> None: ...

    def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Child:
    """A connection to a helper of our own, which ends with the connection."""

    socket: socket.socket
    process: _Process

    def close(self) -> None:
        # Killed rather than asked: idle, it has nothing to lose, and busy (we were interrupted) it may wait for a lock
        # that another helper holds. Every request can be cut off anywhere and repaired by the next.
        self.socket.close()
        self.process.kill()
        self.process.wait()


class _Lasting:
    """A thread that lasts as long as this object. What it starts does so too, where it would die with a thread that
    goes before (PR_SET_PDEATHSIG, prctl(2)): a pool's, or one request's."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="helper")

    def call(self, work: Callable[[], _Child]) -> _Child:
        """What `work` returns or raises, there."""
        return self._pool.submit(work).result()


def open_helper(socket: Path = HELPER_SOCKET, uid: int | None = None, *, log: Path | None = None) -> HelperClient:
    """A connected client of the helper; close it, or use it as a context.

    Parameters
    ----------
    socket: where systemd listens for the helper; not used by root.
    uid: whose way to take; by default this process's effective uid.
    log: gets the audit lines of root's own helper; by default `helper.log` in the state directory.

    Raises BangerError if there is no helper, or this user may not use it.
    """
    client = HelperClient(_way(socket, uid, log))
    client.open()
    return client


class WatchingClient(HelperClient):
    """A client for a call that lasts: another thread can end it."""

    def __init__(self, dial: Callable[[], Connection]) -> None:
        super().__init__(self._remembered)
        self._way = dial
        self._current = threading.Lock()
        self._dialled: Connection | None = None
        self._over = False

    def interrupt(self) -> None:
        """Ends the call that waits, with a HelperLostError or a BangerError, and every later one."""
        with self._current:
            self._over = True
            if self._dialled is not None:
                try:
                    self._dialled.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already

    def _remembered(self) -> Connection:
        with self._current:
            if self._over:
                raise BangerError("the watch on the root helper is over")
            self._dialled = self._way()
            return self._dialled


def open_watching(path: Path = HELPER_SOCKET, uid: int | None = None, *, log: Path | None = None) -> WatchingClient:
    """As `open_helper`."""
    client = WatchingClient(_way(path, uid, log))
    client.open()
    return client


def _way(path: Path, uid: int | None, log: Path | None) -> Callable[[], Connection]:
    if (os.geteuid() if uid is None else uid) != 0:
        return lambda: _connect(path)
    target = log or Paths.discover(uid=0).state / "helper.log"
    thread = _Lasting()
    return lambda: thread.call(lambda: _start(target))


def _connect(path: Path) -> _Dialled:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(str(path))
    except OSError as problem:
        connection.close()
        raise _unreachable(path, problem) from None
    return _Dialled(connection)


def _unreachable(path: Path, problem: OSError) -> BangerError:
    match problem.errno:
        case errno.ENOENT:
            return BangerError(_NEEDED, hint=_SETUP)
        case errno.EACCES:
            hint = f"have root run `usermod -aG banger {_user()}` and log in again; or run with sudo; or use `network: user`"
            return BangerError(f"{_NEEDED}, and {path} is closed to you", hint=hint)
        case errno.ECONNREFUSED:
            return BangerError(
                f"{_NEEDED}, and nobody listens on {path}",
                hint="have root run `systemctl restart banger-helper.socket`; or use `network: user`",
                error_class=ErrorClass.RETRYABLE,
            )
    reason = problem.strerror or str(problem)
    return BangerError(f"{_NEEDED}, and {path}: {reason}", hint=_SETUP, error_class=ErrorClass.RETRYABLE)


def _start(log: Path) -> _Child:
    ours, theirs = socket.socketpair()
    try:
        # Before anything is sent: a message from before this would arrive without its sender's credentials.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        _rotate(log)
        package = Path(reconciler.__file__).resolve().parent.parent
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(package), "--fd", str(theirs.fileno())]
        process = spawn(argv, pass_fds=[theirs.fileno()], log=log)
    except OSError as problem:
        ours.close()
        raise BangerError(f"cannot start the root helper: {problem}", hint=f"is {log.parent} writable?") from None
    finally:
        theirs.close()
    return _Child(ours, process)


def _rotate(log: Path) -> None:
    """Keeps one older file: the log is bounded by twice the limit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        if log.stat().st_size > _MAX_LOG:
            log.replace(log.with_name(f"{log.name}.1"))
    except FileNotFoundError:
        pass


def _user() -> str:
    return os.environ.get("USER") or f"#{os.getuid()}"
