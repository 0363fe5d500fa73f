"""The builder's process: makes one image, kernel or disk of guest tools for whoever is at the other end of stdin and stdout.

`lib.builder` has the protocol and the reason. What is asked for is a description, never a command or a place: the result
goes where the cache has it. Clearing away what a killed builder left is another request, since that belongs to
subordinate users whom only a builder can act for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from reconciler.daemon.drivers import real_packer
from reconciler.drivers.guest import toolsdisk
from reconciler.drivers.images import build
from reconciler.drivers.kernels.fetch import fetch
from reconciler.lib import run
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.builder import LONGEST, VARIABLE
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.once import remove_tree
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Progress
from reconciler.model.artifacts import GuestTools, Image, Kernel
from reconciler.model.codec import from_json

Make = Callable[[Any, Paths, Progress], None]


def remove(of: Any, paths: Paths, progress: Progress) -> None:
    """Removes a staging folder of the cache that nobody works in. Raises BangerError for anything else."""
    folder = Path(str(of))
    parent = folder.parent.parent
    inside = not folder.is_symlink() and parent.resolve().is_relative_to(paths.cache.resolve())
    if folder.parent.name != STAGING or not inside or folder not in corpses(parent):
        raise BangerError(f"{folder} is not a left-over of the cache")
    remove_tree(folder)


MAKE: Mapping[str, Make] = {
    "image": lambda of, paths, progress: build.build(from_json(Image, of), paths, progress, real_packer(paths)),
    "kernel": lambda of, paths, progress: fetch(from_json(Kernel, of), paths, progress),
    "tools": lambda of, paths, progress: toolsdisk.fetch(from_json(GuestTools, of), paths, progress),
    "remove": remove,
}


class _Told:
    """Progress as lines of JSON. Thread-safe."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._lock = threading.Lock()

    def update(self, fraction: float | None, message: str) -> None:
        self.send({"fraction": fraction, "message": message})

    def send(self, answer: Mapping[str, object]) -> None:
        try:
            with self._lock:
                self._sink.write(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # nobody is there any more, which `_end_with` sees


def serve(
    source: IO[bytes],
    sink: IO[bytes],
    paths: Paths,
    *,
    make: Mapping[str, Make] = MAKE,
    gone: Callable[[], None] = run.cancel_all,
) -> None:
    """Answers one request. A failure is the answer's, not the process's.

    Parameters
    ----------
    sink: unbuffered, so that nothing is left to be written at the end.
    gone: is called from a thread when the asker is gone.
    """
    told = _Told(sink)
    line = source.readline(LONGEST)
    threading.Thread(target=_end_with, args=(source.fileno(), gone), daemon=True).start()
    try:
        match json.loads(line):
            case {"make": str(kind), "of": of} if kind in make:
                make[kind](of, paths, told)
            case _:
                raise BangerError("the builder does not know what is asked for")
    except (BangerError, ValueError) as problem:
        told.send({"error": _error(problem)})
    else:
        told.send({"done": True})


def _error(problem: BangerError | ValueError) -> dict[str, str | None]:
    if not isinstance(problem, BangerError):
        return {"cause": str(problem), "hint": None, "replay": None, "class": ErrorClass.TERMINAL.value}
    # A sentence, a hint and a command can be long, and a line is not.
    cause = problem.cause[-LONGEST // 16 :]
    return {"cause": cause, "hint": problem.hint, "replay": problem.replay, "class": problem.error_class.value}


def _end_with(source: int, gone: Callable[[], None]) -> None:
    """Stops the work when the asker is gone: it sends nothing after its request, so all there is to read is the end.

    Not through the file object, whose lock would keep the interpreter from ending.
    """
    try:
        os.read(source, 1)
    except OSError:
        pass
    gone()


def main() -> None:
    """The entry point of the unit."""
    os.environ.pop(VARIABLE, None)
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as sink:
        serve(sys.stdin.buffer, sink, Paths.discover())


if __name__ == "__main__":
    main()
