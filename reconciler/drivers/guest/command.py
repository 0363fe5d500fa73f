"""Runs a command in a guest over its agent, with stdin, stdout and stderr as streams: `banger exec` without a network.

The agent knows files and programs, but no streams. So a script in the guest feeds the command from numbered files that the
host writes, and cuts what the command says into numbered files that the host reads and removes. A file is whole once the
next one is there. All of them lie in /run, which is memory: nothing of them is left on a disk, and no more than SLACK
files of each output wait there for the host, however much the command writes.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from reconciler.drivers.guest.agent import Agent, AgentError, RefusedError
from reconciler.lib.errors import BangerError
from reconciler.model.guestline import BUSYBOX, MARK, signal_line

PIECE = 1 << 20
"""Bytes of an output in one file."""
INPUT_PIECE = 1 << 16
"""Bytes of the input in one: an emulated guest takes in a MiB in seconds, during which nobody else can ask the agent."""
SLACK = 8

_FOLDER = PurePosixPath("/run/banger/exec")
_AHEAD = 64  # files of the input
_STEP_SECONDS = 60.0
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25

# Arguments: folder, user, working directory, and `env` with what it is to run. The shell is busybox's, which would take
# its own programs before the image's: hence the search along the PATH. A reader that ends first ends its writer.
_SCRIPT = f"""\
cd "$1" || exit 125
user=$2 cwd=$3 mark=$4
shift 4
b={BUSYBOX}
feed() {{
    n=0
    while :; do
        if [ -e in.$((n + 1)) ] || [ -e eof ]; then
            [ -e in.$n ] || exit 0
            $b cat in.$n || exit 0
            $b rm -f in.$n
            n=$((n + 1))
        else
            $b sleep 0.1
        fi
    done
}}
collect() {{
    n=0
    while :; do
        while [ $n -ge {SLACK} ] && [ -e $1.$((n - {SLACK})) ]; do $b sleep 0.1; done
        $b dd bs=65536 count={PIECE >> 16} of=$1.$n 2>/dev/null
        [ -s $1.$n ] || break
        n=$((n + 1))
    done
}}
$b mkfifo i o e || exit 125
feed >i &
feeder=$!
collect out <o &
first=$!
collect err <e &
second=$!
(
    exec <i >o 2>e
    cd "$cwd" || exit 126
    case $PATH in '') PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ;; esac
    settings=$1
    shift
    while [ $settings -gt 0 ]; do export "$1"; shift; settings=$((settings - 1)); done
    if [ "$user" != root ]; then
        export "$mark"
        exec $b su -s /bin/sh "$user" -c 'exec "$@"' sh "$@"
    fi
    case $1 in
        */*) program=$1 ;;
        *)
            program=
            IFS=:
            for folder in $PATH; do
                [ ! -x "$folder/$1" ] || [ -d "$folder/$1" ] || {{ program=$folder/$1; break; }}
            done
            unset IFS
            [ -n "$program" ] || {{ echo "$1: not found" >&2; exit 127; }}
            ;;
    esac
    shift
    export "$mark"
    exec "$program" "$@"
)
code=$?
kill $feeder 2>/dev/null
wait $first $second
exit $code
"""


def run(
    agent: Agent,
    words: Sequence[str],
    *,
    user: str,
    cwd: str | None,
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    orders: Callable[[], Sequence[int]],
) -> int:
    """Runs a command to its end and returns its exit code; 128+n if signal n ended it.

    Parameters
    ----------
    streams: descriptors of this process for stdin, stdout and stderr. What stdin is a terminal of is not read.
    orders: the numbers of signals that the command is to get, since it was called last; called a few times a second.

    Raises AgentError where the agent stops to answer, and OSError where an output cannot be written.
    """
    mark = secrets.token_hex(8)
    folder = _FOLDER / mark
    made = agent.run([BUSYBOX, "mkdir", "-p", "-m", "700", str(folder)], seconds=_STEP_SECONDS)
    if made.code != 0:
        raise BangerError(f"the guest makes no folder {folder}: {made.stderr.decode(errors='replace').strip()}")
    settings = [f"{name}={value}" for name, value in env.items()]
    script = [BUSYBOX, "sh", "-c", _SCRIPT, "sh", str(folder), user, cwd or "/", f"{MARK}={mark}"]
    try:
        pid = agent.start([*script, str(len(settings)), *settings, *words])
        stdin = _Input(agent, folder, streams[0])
        outputs = [_Output(agent, folder / name, fd) for name, fd in (("out", streams[1]), ("err", streams[2]))]
        pause = _FIRST_PAUSE
        while (finished := agent.status(pid)) is None:
            for number in orders():
                agent.start(["/bin/sh", "-c", signal_line(mark, number)])
            # All of them: the second is not to wait for the first to fall silent.
            moved = sum([stdin.move(), *(output.move() for output in outputs)])
            pause = _FIRST_PAUSE if moved else min(_LONGEST_PAUSE, 2 * pause)
            if not moved:
                time.sleep(pause)
        for output in outputs:
            while output.move():
                pass
        return finished.code
    finally:
        try:
            agent.start([BUSYBOX, "rm", "-rf", str(folder)])
        except AgentError:
            pass  # the folder is memory of a guest that is gone or hangs


class _Input:
    """What a command gets to read: from a descriptor of ours to numbered files of the guest."""

    def __init__(self, agent: Agent, folder: PurePosixPath, fd: int) -> None:
        self._agent = agent
        self._folder = folder
        self._fd = fd
        self._number = 0
        self._ended = False

    def move(self) -> int:
        """Moves what can be read at once, one file at most, and returns how much that was."""
        if self._ended or not self._wanted():
            return 0
        # A terminal is somebody's, who does not know that it would be read.
        data = b"" if os.isatty(self._fd) else self._read()
        if data is None:
            return 0
        if not data:
            self._ended = True
            self._agent.write_file(str(self._folder / "eof"), [])
            return 1
        self._agent.write_file(str(self._folder / f"in.{self._number}"), [data])
        self._number += 1
        return len(data)

    def _wanted(self) -> bool:
        """Whether the guest has taken what was sent, but for a few files."""
        if self._number < _AHEAD:
            return True
        try:
            handle = self._agent.open_file(str(self._folder / f"in.{self._number - _AHEAD}"), "r")
        except RefusedError:
            return True
        self._agent.close_file(handle)
        return False

    def _read(self) -> bytes | None:
        """What is there, at most INPUT_PIECE bytes; nothing at the end, None if that is not known yet."""
        data = b""
        while len(data) < INPUT_PIECE and select.select([self._fd], [], [], 0)[0]:
            more = os.read(self._fd, INPUT_PIECE - len(data))
            if not more:
                return data
            data += more
        return data or None


class _Output:
    """One output of a command: the numbered files of the guest, in order, to a descriptor of ours."""

    def __init__(self, agent: Agent, prefix: PurePosixPath, fd: int) -> None:
        self._agent = agent
        self._prefix = prefix
        self._fd = fd
        self._number = 0
        self._handle: int | None = None

    def move(self) -> int:
        """Moves what is there, of one file at most, and returns how much that was."""
        if self._handle is None:
            self._handle = self._open(self._number)
            if self._handle is None:
                return 0
        # Asked before the file is read: if the next one is there, this one is whole.
        following = self._open(self._number + 1)
        count = 0
        while data := self._agent.read_some(self._handle):
            _write(self._fd, data)
            count += len(data)
        if following is not None:
            self._agent.close_file(self._handle)
            self._agent.start([BUSYBOX, "rm", "-f", f"{self._prefix}.{self._number}"], capture=False)
            self._handle = following
            self._number += 1
            return max(1, count)
        return count

    def _open(self, number: int) -> int | None:
        try:
            return self._agent.open_file(f"{self._prefix}.{number}", "r")
        except RefusedError:
            return None


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
