"""The one door to other programs.

Every child is in a session of its own, so that a Ctrl-C on the terminal reaches only banger, which then
ends its children in order; and it dies with banger (PR_SET_PDEATHSIG, prctl(2)) unless it asked not to,
so that a `kill -9` leaves no build running. A failed command is shown as one can paste it into a shell.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass

_TAIL_LINES = 15
# A parent that ended before its child had asked for its signal sends none (prctl(2)): the child looks once, afterwards.
_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'
_WATCH_SECONDS = 0.25
_withheld: set[str] = set()
_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished command left."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def how(self) -> str:
        """How it ended, in words that follow its name."""
        if self.returncode >= 0:
            return f"failed with exit code {self.returncode}"
        try:
            return f"was killed by {signal.Signals(-self.returncode).name}"
        except ValueError:
            return f"was killed by signal {-self.returncode}"


class CommandError(BangerError):
    """A command that could not be started, failed, or took too long."""

    def __init__(
        self,
        cause: str,
        argv: Sequence[str],
        returncode: int | None,
        output: str,
        *,
        hint: str | None = None,
        replay: str | None = None,
        error_class: ErrorClass = ErrorClass.TERMINAL,
        failed: Sequence[Completed] = (),
    ) -> None:
        tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
        super().__init__(
            f"{cause}: {tail}" if tail else cause,
            hint=hint,
            replay=replay or shlex.join(argv),
            error_class=error_class,
        )
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output
        self.failed = tuple(failed)
        """Of a pipe: each of its commands that failed, in their order."""


def which(program: str) -> str | None:
    """The absolute path of a program; also looks into the sbin folders, which a normal user's PATH lacks."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def require(program: str, package: str) -> str:
    """The path of a program, or an error that names the Debian package which has it."""
    found = which(program)
    if found is None:
        raise BangerError(f"{program} is not installed", hint=f"apt-get install {package}")
    return found


def cancel_all() -> None:
    """Ends every running child and refuses new ones: what Ctrl-C means to the worker threads."""
    cancel.cancel()
    with _lock:
        children = list(_running)
    for child in children:
        _signal(child, signal.SIGTERM)


def cancelled() -> bool:
    """Whether `cancel_all` was called: long loops ask between two steps."""
    return cancel.cancelled()


def reset_cancel() -> None:
    """Allows new children again (a process that outlives one operation, and the tests)."""
    cancel.reset()


def withhold(variable: str) -> None:
    """Keeps a variable of the environment from every child that is started from here on: some live very long."""
    _withheld.add(variable)


def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    watch: Callable[[], None] | None = None,
) -> Completed:
    """Runs a command to its end and returns its output.

    Parameters
    ----------
    timeout: seconds, after which its whole process group is killed.
    watch: called about four times a second while it runs; what it raises ends the command.
    env: added to the environment, with None taken out of it; the locale is always C.UTF-8, so that messages can be
        read by programs.
    check: whether a non-zero exit raises CommandError.
    """
    words = [str(word) for word in argv]
    child = begin(words, cwd=cwd, env=env, stdin=input is not None, pass_fds=pass_fds)
    with registered(child):
        try:
            out, err = _communicate(child, input, timeout, watch)
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGKILL)
            out, err = child.communicate()
            raise CommandError(
                f"{words[0]} did not finish within {timeout:g} s",
                words,
                None,
                _text(err),
                error_class=ErrorClass.RETRYABLE,
            ) from None
    if cancel.cancelled() and child.returncode != 0:
        raise CancelledError
    done = Completed(tuple(words), child.returncode, out, err)
    if check and done.returncode != 0:
        raise CommandError(f"{words[0]} {done.how}", words, done.returncode, _text(err or out))
    return done


def _communicate(
    child: subprocess.Popen[bytes], input: bytes | None, timeout: float | None, watch: Callable[[], None] | None
) -> tuple[bytes, bytes]:
    """Raises TimeoutExpired, and whatever `watch` raises."""
    if watch is None:
        return child.communicate(input, timeout=timeout)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _WATCH_SECONDS if end is None else min(_WATCH_SECONDS, end - time.monotonic())
        try:
            return child.communicate(input, timeout=max(left, 0))
        except subprocess.TimeoutExpired:
            if end is not None and time.monotonic() >= end:
                raise
            watch()


def pipeline(
    commands: Sequence[Sequence[str | Path]],
    *,
    env: Mapping[str, str | None] | None = None,
    on_line: Callable[[str], None] | None = None,
    output: Path | None = None,
) -> None:
    """Runs commands with each one's stdout feeding the next, like a shell pipe with `pipefail`.

    Parameters
    ----------
    on_line: gets each line that any of them writes to stderr, from threads, as it comes: progress.
    output: the file that gets the last one's stdout; else that is discarded.
    """
    children: list[subprocess.Popen[bytes]] = []
    talk: dict[int, list[str]] = {}
    readers: list[threading.Thread] = []
    sink = output.open("wb") if output else None
    try:
        previous: int | None = None
        for index, argv in enumerate(commands):
            words = [str(word) for word in argv]
            last = index == len(commands) - 1
            out = sink.fileno() if last and sink else subprocess.DEVNULL if last else subprocess.PIPE
            child = begin(words, env=env, stdin_fd=previous, stdout=out)
            if previous is not None:
                os.close(previous)
            previous = None
            if child.stdout is not None:
                previous = os.dup(child.stdout.fileno())
                child.stdout.close()
                child.stdout = None
            children.append(child)
            _register(child)
            talk[index] = []
            reader = threading.Thread(target=_read_lines, args=(child, talk[index], on_line), daemon=True)
            reader.start()
            readers.append(reader)
        codes = [child.wait() for child in children]
        for reader in readers:
            reader.join()
    finally:
        if sink:
            sink.close()
        for child in children:
            if child.poll() is None:
                _signal(child, signal.SIGKILL)
                child.wait()
        with _lock:
            _running.difference_update(children)
    if cancel.cancelled():
        raise CancelledError
    # A SIGPIPE upstream is the consequence of a failure downstream. Of others it cannot be told which came first: a
    # program may make an error of its own of a broken pipe, and of an input that ends early. So all of them are told.
    ends = [
        Completed(tuple(map(str, argv)), code, b"", "\n".join(talk[i]).encode())
        for i, (argv, code) in enumerate(zip(commands, codes, strict=True))
    ]
    failed = [end for end in ends if end.returncode not in (0, -signal.SIGPIPE)] or [e for e in ends if e.returncode]
    if failed:
        raise CommandError(
            ", ".join(f"{end.argv[0]} {end.how}" for end in failed),
            failed[0].argv,
            failed[0].returncode,
            "\n".join(_text(end.stderr) for end in failed),
            replay=" | ".join(shlex.join(end.argv) for end in ends),
            failed=failed,
        )


def spawn(
    argv: Sequence[str | Path], *, pass_fds: Sequence[int] = (), log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Starts a long-lived child that serves this process and dies with it. The caller waits for it."""
    stderr = log.open("ab") if log else None
    try:
        return subprocess.Popen(
            _dying(list(map(str, argv))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr or None,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    finally:
        if stderr:
            stderr.close()


def interactive(argv: Sequence[str | Path]) -> int:
    """Runs a command on this terminal, in this session, and returns its exit code (128+n for signal n)."""
    words = [str(word) for word in argv]
    try:
        child = subprocess.Popen(words)
    except OSError as problem:
        raise CommandError(f"cannot start {words[0]}: {problem.strerror}", words, None, "") from None
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if _main_thread() else None
    try:
        code = child.wait()
    finally:
        if previous is not None:
            signal.signal(signal.SIGINT, previous)
    return code if code >= 0 else 128 - code


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _dying(words: list[str]) -> list[str]:
    setpriv = which("setpriv")
    if setpriv is None:
        return words
    return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _UNLESS_ORPHANED, str(os.getpid()), *words]


def begin(
    words: list[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: bool = False,
    stdin_fd: int | None = None,
    stdout: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A child with pipes, for whoever moves the bytes himself; inside of `registered` it is ended with the block."""
    if cancel.cancelled():
        raise CancelledError
    # Resolved here, so that a missing program is told from a failing one: setpriv would hide the difference.
    program = which(words[0])
    if program is None:
        raise CommandError(f"{words[0]} is not installed", words, None, "")
    own = {name: value for name, value in os.environ.items() if name not in _withheld}
    merged: dict[str, str | None] = {**own, **(env or {}), "LC_ALL": "C.UTF-8"}
    return subprocess.Popen(
        _dying([program, *words[1:]]),
        cwd=cwd,
        env={key: value for key, value in merged.items() if value is not None},
        stdin=stdin_fd if stdin_fd is not None else subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _register(child: subprocess.Popen[bytes]) -> None:
    with _lock:
        _running.add(child)
    if cancel.cancelled():
        _signal(child, signal.SIGTERM)  # it was begun while all others were being ended


@contextmanager
def registered(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Has `cancel_all` end a child of `begin`, and ends it with the block."""
    _register(child)
    try:
        yield
    finally:
        if child.poll() is None:
            _signal(child, signal.SIGKILL)
            child.wait()
        with _lock:
            _running.discard(child)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def _read_lines(child: subprocess.Popen[bytes], into: list[str], on_line: Callable[[str], None] | None) -> None:
    assert child.stderr is not None
    for raw in child.stderr:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        into.append(line)
        del into[:-200]
        if on_line:
            on_line(line)
    child.stderr.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
