"""What runs in the sandbox: reads the layers that a job names, and writes one tar to stdout.

On stderr it talks in lines of JSON: `{"progress": FRACTION}`, `{"warning": TEXT}`, and at the end `{"done": {…}}` or
`{"refused": TEXT}`. The first line of stdout has the mode of the root folder, in octal, and the time of the newest entry, in seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from reconciler.drivers.images.layers.blobs import Blob, Budget, Encoding
from reconciler.drivers.images.layers.emit import Output, emit
from reconciler.drivers.images.layers.merge import merge
from reconciler.drivers.images.layers.records import Entry
from reconciler.drivers.images.layers.refusal import RefusedError

_MOST_WARNINGS = 100
_STEPS = 200  # of progress that are told
REFUSED = 3
"""The exit code of a refusal, which was told; any other is a fault."""


class Talk:
    """Lines to the one who started this."""

    def __init__(self, total: int) -> None:
        self._total = max(1, total)
        self._read = 0
        self._told = 0
        self._warnings = 0

    def say(self, **what: object) -> None:
        os.write(2, json.dumps(what).encode() + b"\n")

    def read(self, size: int) -> None:
        """So many compressed bytes more were read, of all that both readings have."""
        self._read += size
        step = self._read * _STEPS // self._total
        if step > self._told:
            self._told = step
            self.say(progress=min(1.0, step / _STEPS))

    def warn(self, text: str) -> None:
        self._warnings += 1
        if self._warnings <= _MOST_WARNINGS:
            self.say(warning=text)

    def end(self, entries: int, size: int) -> None:
        if (more := self._warnings - _MOST_WARNINGS) > 0:
            self.say(warning=f"and {more} more like these")
        self.say(done={"entries": entries, "bytes": size})


def main(job: dict[str, Any]) -> int:
    """Does one job. Returns the exit code."""
    seconds = job["seconds"]

    def late(_number: int, _frame: object) -> None:
        raise RefusedError(f"takes more than the {seconds:g} s of processor time that it may")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    talk = Talk(2 * sum(layer["size"] for layer in job["layers"]))
    try:
        _flatten(job, talk)
    except RefusedError as problem:
        talk.say(refused=f"the image is refused: {problem}")
        return REFUSED
    except MemoryError:
        talk.say(refused="the image is refused: it takes more memory than it may")
        return REFUSED
    except BrokenPipeError:
        return 0  # who reads the tar has failed, and says why
    return 0


def _flatten(job: dict[str, Any], talk: Talk) -> None:
    blobs = [
        Blob(
            Path(layer["path"]),
            Encoding(layer["encoding"]),
            layer["digest"],
            layer["size"],
            layer["diff_id"],
            on_read=talk.read,
        )
        for layer in job["layers"]
    ]
    budget = Budget(job["bytes"])
    merged = merge(blobs, budget, job["entries"], talk.warn)
    output = Output(1)

    def root(entry: Entry | None) -> None:
        if entry and (entry.xattrs or (entry.uid, entry.gid) != (0, 0)):
            talk.warn(f"the root folder is root's, not {entry.uid}:{entry.gid}'s, and has no attributes")
        output.write(b"%o %d\n" % (entry.mode if entry else 0o755, merged.newest))
        output.flush()

    emit(merged, blobs, output, root)
    talk.end(merged.begins[-1] - 1, budget.used)


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_bytes())))
