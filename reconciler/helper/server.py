"""The helper's process: one inherited connection (`--fd N`), or the listening socket that systemd hands over.

Socket activation as in sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, descriptors from 3 on. An activated helper with
nothing to do ends, and the next connection starts it again; killing it at any moment loses nothing.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Sequence

from reconciler.helper.protocol import Code, Refusal
from reconciler.helper.session import Replays, Session

MAX_PER_UID = 8
MAX_CONNECTIONS = 64
IDLE_SECONDS = 60.0
"""How long a connection may be silent between two requests; clients reconnect by themselves."""
RETIRE_SECONDS = 300.0
"""How long an activated helper without connections stays."""
STOP_SECONDS = 15.0
_FIRST_FD = 3
_USAGE = "usage: python -I -m reconciler.helper [--fd N]   (without --fd: started by systemd's socket activation)"


class Server:
    """Accepts connections on a listening socket, one thread each, within limits."""

    def __init__(self, listener: socket.socket, *, idle: float = IDLE_SECONDS, retire: float = RETIRE_SECONDS) -> None:
        self._listener = listener
        self._idle = idle
        self._retire = retire
        self._replays = Replays()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, int] = {}
        self._threads: set[threading.Thread] = set()
        self._wake_in, self._wake_out = socket.socketpair()

    def stop(self) -> None:
        """Ends `serve` after the requests that are under way. Callable from a signal handler."""
        self._stopping.set()
        try:
            self._wake_out.send(b"\0", socket.MSG_DONTWAIT)
        except OSError:
            pass

    def serve(self) -> None:
        """Serves until `stop`, or until there was no connection for the retirement time."""
        # systemd has done so already (PassCredentials=), before the first connection could be made.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if selector.select(self._retire):
                    self._accept()
                elif not self._open:
                    break
        self._end()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # taken back by the peer; or out of descriptors, and then a connection has to end first
            return
        session = Session(connection, replays=self._replays, stopping=self._stopping, idle=self._idle)
        uid = session.peer.uid
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS or Counter(self._open.values())[uid] >= MAX_PER_UID
            if not full:
                self._open[connection] = uid
        if full:
            session.turn_away(Refusal(Code.TOO_MANY_CONNECTIONS, f"uid {uid} may have {MAX_PER_UID} connections"))
            return
        thread = threading.Thread(target=self._run, args=(session, connection), name=f"uid {uid}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self, session: Session, connection: socket.socket) -> None:
        try:
            session.serve()
        finally:
            with self._lock:
                self._open.pop(connection, None)
            self._threads.discard(threading.current_thread())

    def _end(self) -> None:
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RD)
                except OSError:
                    pass
        for thread in list(self._threads):
            thread.join(STOP_SECONDS)
        self._wake_in.close()
        self._wake_out.close()


def main(argv: Sequence[str]) -> int:
    """Runs the helper; returns its exit code (2: started in a way it cannot serve)."""
    match list(argv):
        case ["--fd", number] if number.isdecimal() and int(number) >= _FIRST_FD:
            return _serve_child(int(number))
        case []:
            return _serve_activated()
    print(_USAGE, file=sys.stderr)  # noqa: T201 - no logging in a process this small
    return 2


def _serve_child(fd: int) -> int:
    """One connection to the parent, whose end is ours too."""
    _isolate(keep=range(fd, fd + 1))
    try:
        # Here and not above: importing it costs a service, which needs none of it, a tenth of its start.
        from reconciler.helper import privileges  # noqa: PLC0415

        privileges.drop()
        connection = socket.socket(fileno=fd)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        session = Session(connection, replays=Replays(), stopping=threading.Event(), idle=None)
    except OSError as problem:
        print(f"--fd {fd}: {problem.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    # A Ctrl-C on the parent's terminal is the parent's to handle; its end reaches us as the end of the stream.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session.serve()
    return 0


def _serve_activated() -> int:
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count != "1":
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 2
    _isolate(keep=range(_FIRST_FD, _FIRST_FD + 1))
    with socket.socket(fileno=_FIRST_FD) as listener:
        if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            print("descriptor 3 is not a listening Unix socket", file=sys.stderr)  # noqa: T201
            return 2
        server = Server(listener)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        server.serve()
    return 0


def _isolate(keep: range) -> None:
    """Lets go of what was inherited: environment, working directory, umask, stray descriptors; stdio exists after."""
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    for fd in range(_FIRST_FD):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    os.closerange(_FIRST_FD, keep.start)
    os.closerange(keep.stop, os.sysconf("SC_OPEN_MAX"))
    os.set_inheritable(keep.start, False)
