"""cache df, plan, prune and image cache prune: what they ask for, and what they make of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.api.service import ApplyOptions
from reconciler.cli import target
from reconciler.model.desired import DesiredState
from reconciler.model.plan import Plan, Step
from reconciler.model.retention import CachePolicy
from tests.cli.conftest import Run
from tests.fakes.service import CACHE, FakeService, eviction

WITH_POLICY = DesiredState(environment="demo", cache=CachePolicy())


@pytest.fixture
def policy(spec: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "load", lambda given, settings: SimpleNamespace(desired=WITH_POLICY))


def test_df_counts_by_kind(run: Run, service: FakeService) -> None:
    done = run("cache", "df")
    assert done.stdout.splitlines()[:3] == [
        "KIND       ENTRIES  SIZE       NEEDED",
        "blob       1        5.0 MiB    0 B",
        "image      1        300.0 MiB  300.0 MiB",
    ]
    assert "305.0 MiB in /nonexistent/cache; 10.0 GiB of 100.0 GiB free there" in done.stderr
    assert service.calls == [("cache", None)]
    items = json.loads(run("cache", "df", "-o", "json").stdout)["items"]
    assert {item["name"]: item["size"] for item in items}["trash"] == 4 << 20
    assert run("cache", "df", "-o", "name").stdout.splitlines()[0] == "cache/blob"


def test_the_plan_names_rule_reason_and_bytes(run: Run, service: FakeService, policy: None) -> None:
    done = run("cache", "plan")
    assert done.stdout == (
        "KIND   ENTRY                 SIZE     FREES    RULE            REASON\n"
        "blob   abababababababababa…  5.0 MiB  5.0 MiB  cache.rules[0]  not used for 30d\n"
        "trash  demo.old.0123         4.0 MiB  4.0 MiB  cache.rules[1]  not used for 7d\n"
    )
    assert "2 of 3 entries would go, and free 9.0 MiB" in done.stderr
    assert service.calls == [("cache", "demo")]


def test_with_all_every_entry_says_why_it_stays(run: Run, service: FakeService, policy: None) -> None:
    lines = run("cache", "plan", "--all").stdout.splitlines()
    assert lines[1].startswith("=  image") and lines[1].endswith("needed          environment demo has it")
    found = json.loads(run("cache", "plan", "--all", "-o", "json").stdout)
    assert found["frees"] == 9 << 20 and [item["evict"] for item in found["items"]] == [False, True, True]
    assert run("cache", "plan", "-o", "name").stdout.splitlines() == ["blob/" + "ab" * 32, "trash/demo.old.0123"]


def test_a_cache_that_stays_full_says_so(run: Run, service: FakeService, policy: None) -> None:
    service.the_cache = dataclasses.replace(CACHE, pressed=True)
    assert "stays above its limit" in run("cache", "plan").stderr


def test_a_file_without_a_policy_prunes_nothing_and_asks_nobody(
    run: Run, service: FakeService, spec: SimpleNamespace
) -> None:
    done = run("cache", "prune")
    assert done.exit_code == 0 and "nothing is ever pruned" in done.stderr and service.calls == []
    service.the_cache = dataclasses.replace(CACHE, policy=False, verdicts=())
    assert "nothing is ever pruned" in run("cache", "plan").stderr


def test_prune_does_what_was_planned_and_says_it(run: Run, service: FakeService, policy: None) -> None:
    service.the_plan = Plan(environment="demo", steps=(Step(eviction()),))
    done = run("cache", "prune")
    assert done.exit_code == 0 and service.calls == [("prune_cache", "demo", ApplyOptions())]
    assert "1 to evict" in done.stderr
    service.the_plan = Plan(environment="demo")
    assert "nothing to prune" in run("cache", "prune").stderr


def test_a_dry_run_only_shows(run: Run, service: FakeService, policy: None) -> None:
    done = run("cache", "prune", "--dry-run")
    assert done.stdout == run("cache", "plan").stdout and service.calls == [("cache", "demo")] * 2


@pytest.mark.parametrize(("flags", "verb"), [((), "freed"), (("--dry-run",), "would free")])
def test_image_cache_prune_is_one_line(run: Run, service: FakeService, flags: tuple[str, ...], verb: str) -> None:
    assert run("image", "cache", "prune", *flags).stdout == f"{verb} 1.2 GiB across 47 blob(s) in /nonexistent/oci\n"
    assert service.calls == [("clear_blobs", bool(flags))]
    found = json.loads(run("image", "cache", "prune", *flags, "-o", "json").stdout)
    assert found == {
        "apiVersion": "banger/v1",
        "folder": str(Path("/nonexistent/oci")),
        "blobs": 47,
        "size": 1288490189,
        "dryRun": bool(flags),
    }
    assert run("image", "cache", "prune", *flags, "-q").stdout == ""


def test_image_commit_prints_what_to_declare(run: Run, service: FakeService) -> None:
    done = run("image", "commit", "dev", "gold")
    made = service.the_committed
    assert done.stdout == (
        f"images:\n  gold:\n    file: {made.path}\n    sha256: '{made.sha256}'\n    format: squashfs\n    kernel: debian\n"
    ).replace("'", '"')
    assert service.calls[-1][:3] == ("commit", "demo/dev", "gold")
    found = json.loads(run("image", "commit", "dev", "gold", "-o", "json").stdout)
    assert (found["name"], found["file"], found["size"]) == ("gold", str(made.path), made.size)
    assert run("image", "commit", "dev", "gold", "-o", "name").stdout == f"{made.path}\n"


@pytest.mark.parametrize("name", ["Gold", "../gold", "", "x" * 32])
def test_image_commit_takes_only_a_name(run: Run, service: FakeService, name: str) -> None:
    done = run("image", "commit", "dev", name)
    assert done.exit_code == 2 and "lower-case letters" in done.stderr and service.calls == []
