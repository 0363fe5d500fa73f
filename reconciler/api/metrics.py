"""What a controller counts, and the text that Prometheus reads.

The format is the text exposition format 0.0.4: a few lines per metric, which is less than a client library costs
in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.api.service import ServiceInfo
    from reconciler.model.status import ObjectStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. A pass over a quiet host takes a few milliseconds, one over a thousand VMs 150 ms.
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """What is counted while a controller runs. Any thread may call any method; none of them waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes: dict[tuple[str, bool], int] = {}
        self._steps: dict[tuple[str, str], int] = {}
        self._buckets = [0] * (len(PASS_BUCKETS) + 1)
        self._seconds = 0.0
        self._depth = 0

    def observe_pass(self, environment: str, seconds: float, *, ok: bool = True) -> None:
        """A pass over an environment has ended; `ok` is False if the host could not be observed."""
        index = next((i for i, bound in enumerate(PASS_BUCKETS) if seconds <= bound), len(PASS_BUCKETS))
        with self._lock:
            self._passes[environment, ok] = self._passes.get((environment, ok), 0) + 1
            self._buckets[index] += 1
            self._seconds += seconds

    def observe_step(self, verb: str, result: str) -> None:
        """A step has ended: `start`, `failed`."""
        with self._lock:
            self._steps[verb, result] = self._steps.get((verb, result), 0) + 1

    def set_queue_depth(self, depth: int) -> None:
        """How many environments wait for a pass."""
        self._depth = depth

    def lines(self) -> Iterator[str]:
        """The counters in the text format."""
        with self._lock:
            passes, steps = dict(self._passes), dict(self._steps)
            buckets, seconds = list(self._buckets), self._seconds
        yield from _metric(
            "banger_passes_total",
            "counter",
            "Passes over an environment, by whether the host could be observed.",
            [({"environment": name, "ok": str(ok).lower()}, count) for (name, ok), count in sorted(passes.items())],
        )
        yield from _metric(
            "banger_steps_total",
            "counter",
            "Steps that were tried, by what they do and how they ended.",
            [({"verb": verb, "result": result}, count) for (verb, result), count in sorted(steps.items())],
        )
        yield from _head("banger_pass_seconds", "histogram", "How long passes took.")
        total = 0
        for bound, count in zip((*map(str, PASS_BUCKETS), "+Inf"), buckets, strict=True):
            total += count
            yield f'banger_pass_seconds_bucket{{le="{bound}"}} {total}'
        yield f"banger_pass_seconds_sum {seconds!r}"
        yield f"banger_pass_seconds_count {total}"
        yield from _metric("banger_queue_depth", "gauge", "Environments that wait for a pass.", [({}, self._depth)])


def exposition(info: ServiceInfo, vms: Sequence[ObjectStatus], counters: Counters) -> str:
    """Everything there is to measure, as Prometheus reads it."""
    lines = [
        *_metric("banger_info", "gauge", "The version that runs.", [({"version": info.version}, 1)]),
        *_metric(
            "banger_start_time_seconds", "gauge", "Since when it runs, in seconds since the epoch.", [({}, info.since)]
        ),
        *_metric(
            "banger_source_ok",
            "gauge",
            "Whether a watched file is acted upon as it stands.",
            [({"path": str(s.path), "environment": s.environment or ""}, int(s.problem is None)) for s in info.sources],
        ),
        *_metric(
            "banger_source_generation",
            "gauge",
            "How often what a file asks for has changed.",
            [({"path": str(s.path), "environment": s.environment or ""}, s.generation) for s in info.sources],
        ),
        *_metric(
            "banger_vm_ready",
            "gauge",
            "Whether a VM can be used.",
            [({"environment": vm.environment, "name": vm.name}, int(vm.ready)) for vm in vms],
        ),
        *_metric(
            "banger_vm_state",
            "gauge",
            "Where a VM is: 1 for its state.",
            [({"environment": vm.environment, "name": vm.name, "state": vm.state.value}, 1) for vm in vms],
        ),
        *counters.lines(),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield from _head(name, kind, text)
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
