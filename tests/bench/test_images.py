"""What flattening an image costs, beside the raw tools on the same bytes."""

from __future__ import annotations

import gzip
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.drivers.images.flatten import Layer, flatten
from reconciler.drivers.images.squashfs import packing
from reconciler.lib.progress import Silent
from reconciler.lib.run import pipeline
from reconciler.lib.units import MIB
from tests.bench.conftest import Measurement, Record
from tests.drivers.images import archives

pytestmark = pytest.mark.bench

SIZE = 500 * MIB
LAYERS = 12
RUNS = 3


def programs() -> Iterator[Path]:
    """Files of this host, as images have them: programs, libraries, texts."""
    while True:
        for top in ("/usr/bin", "/usr/lib", "/usr/share"):
            for folder, _, names in os.walk(top):
                for name in names:
                    path = Path(folder) / name
                    if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                        yield path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Layer], Path]:
    """500 MiB in 12 layers with gzip, and the same files as one tar with gzip."""
    folder = tmp_path_factory.mktemp("image")
    one = gzip.GzipFile(folder / "one.tar.gz", "wb", 6)
    source = programs()
    layers = []
    for number in range(LAYERS):
        members, size = [], 0
        while size < SIZE // LAYERS:
            data = next(source).read_bytes()
            members.append(archives.entry(f"l{number}/d{len(members) // 100}/f{len(members)}", content=data))
            size += len(members[-1])
        tar = b"".join(members)
        one.write(tar)
        path = folder / f"{number}"
        data = gzip.compress(tar + archives.END, 6)
        path.write_bytes(data)
        layers.append(
            Layer(path, archives.OCI + "+gzip", archives.digest(data), len(data), archives.digest(tar + archives.END))
        )
    one.write(archives.END)
    one.close()
    return layers, folder / "one.tar.gz"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_flattening_against_a_pipe(image: tuple[list[Layer], Path], tmp_path: Path, record: Record) -> None:
    """Twice read, verified, merged and in a sandbox, against a pipe that does none of this."""
    layers, tar = image
    out = tmp_path / "x.squashfs"

    def ours() -> None:
        out.unlink(missing_ok=True)
        flatten(layers, out, tmp_path, Silent())

    def theirs() -> None:
        out.unlink(missing_ok=True)
        # In sessions of their own like ours, which Linux schedules as groups (sched(7), "The autogroup feature").
        pipeline([["zcat", tar], packing(out)])

    pairs = [(timed(ours), timed(theirs)) for _ in range(RUNS)]
    mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    record(
        Measurement(
            promise="flatten 12 layers, 500 MiB",
            ours=f"{mine:.2f} s",
            theirs=f"zcat | sqfstar {other:.2f} s",
            value=mine / other,
            limit=1.3,
            unit="×",
        )
    )


def resident(root: int) -> int:
    """Bytes that a process and all below it hold, pages that they share counted for each."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                sizes[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                parents[int(entry.name)] = int(fields[1])
            except OSError:
                continue
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(sizes[pid] for pid in below if pid != root)


def test_memory_does_not_grow_with_the_image(image: tuple[list[Layer], Path], tmp_path: Path, record: Record) -> None:
    layers, _ = image
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, resident(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        flatten(layers, tmp_path / "x.squashfs", tmp_path, Silent())
    finally:
        done.set()
        watcher.join()
    record(
        Measurement(
            promise="memory of flattening it",
            ours=f"{peak / MIB:.0f} MiB",
            theirs="-",
            value=peak / MIB,
            limit=150,
            unit=" MiB",
        )
    )
