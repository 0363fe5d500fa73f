"""What Prometheus reads: text exposition format 0.0.4."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

from reconciler.api.metrics import PASS_BUCKETS, Counters, exposition
from reconciler.api.service import ServiceInfo, SourceInfo
from reconciler.model.status import State
from tests.fakes.service import INFO, vm_status

# The grammar, as far as it goes: https://prometheus.io/docs/instrumenting/exposition_formats/
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"[a-z_]+(?:\{{{_LABEL}(?:,{_LABEL})*\}})? -?[0-9][0-9.e+-]*")
_COMMENT = re.compile(r"# (?:HELP [a-z_]+ .+|TYPE [a-z_]+ (?:counter|gauge|histogram))")


def samples(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        assert (_COMMENT if line.startswith("#") else _SAMPLE).fullmatch(line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in found, line
            found[name] = float(value)
    assert text.endswith("\n")
    return found


def test_everything_is_told() -> None:
    counters = Counters()
    for seconds in (0.004, 0.005, 0.02, 99.0):
        counters.observe_pass("demo", seconds)
    counters.observe_pass("other", 0.2, ok=False)
    counters.observe_step("start", "done")
    counters.observe_step("start", "done")
    counters.observe_step("start", "failed")
    counters.set_queue_depth(3)
    source = SourceInfo(path=Path('/etc/a"b\\c\nd.yaml'), environment=None, problem="1:1: no", generation=4, since=1.0)
    info = ServiceInfo(version="1.2", pid=1, state=Path("/s"), controller=True, since=1.5, sources=(source,))
    found = samples(exposition(info, [vm_status(), vm_status("web", state=State.FAILED)], counters))

    where = '{path="/etc/a\\"b\\\\c\\nd.yaml",environment=""}'
    expected = {
        'banger_info{version="1.2"}': 1,
        "banger_start_time_seconds": 1.5,
        f"banger_source_ok{where}": 0,
        f"banger_source_generation{where}": 4,
        'banger_vm_ready{environment="demo",name="dev"}': 1,
        'banger_vm_ready{environment="demo",name="web"}': 0,
        'banger_vm_state{environment="demo",name="web",state="failed"}': 1,
        'banger_passes_total{environment="demo",ok="true"}': 4,
        'banger_passes_total{environment="other",ok="false"}': 1,
        'banger_steps_total{verb="start",result="done"}': 2,
        'banger_steps_total{verb="start",result="failed"}': 1,
        'banger_pass_seconds_bucket{le="0.005"}': 2,
        'banger_pass_seconds_bucket{le="0.025"}': 3,
        'banger_pass_seconds_bucket{le="0.25"}': 4,
        f'banger_pass_seconds_bucket{{le="{PASS_BUCKETS[-1]}"}}': 4,
        'banger_pass_seconds_bucket{le="+Inf"}': 5,
        "banger_pass_seconds_count": 5,
        "banger_queue_depth": 3,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert abs(found["banger_pass_seconds_sum"] - 99.229) < 1e-9


def test_nothing_has_happened_yet() -> None:
    found = samples(exposition(INFO, [], Counters()))
    assert found["banger_pass_seconds_count"] == found["banger_queue_depth"] == 0


def test_many_threads_count_right() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2000):
            counters.observe_pass("demo", 0.001)
            counters.observe_step("start", "done")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    found = samples(exposition(INFO, [], counters))
    assert found['banger_passes_total{environment="demo",ok="true"}'] == 16000
    assert found['banger_steps_total{verb="start",result="done"}'] == 16000
    assert found['banger_pass_seconds_bucket{le="+Inf"}'] == 16000
