"""plan, apply, delete and saved plans: consent, exit codes, what is told and where."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from reconciler.api.service import ApplyResult
from reconciler.cli import converge, planfile, resources
from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan
from reconciler.model.status import State
from tests.cli.conftest import Run
from tests.fakes.service import FakeService, creation, held, removal, restart, vm_status


def test_plan_for_people(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    service.the_plan = creation()
    result = run("plan")
    assert result.exit_code == 0
    assert result.stdout == (
        "environment demo\n"
        "\n"
        "images\n"
        "  + build image base: Debian bookworm with git\n"
        "      not built yet\n"
        "\n"
        "vms\n"
        "  + create vm dev: image base, disk 4GiB, network user\n"
        "      new in the file\n"
        "  + start vm dev: 2 cpu(s), 512MiB\n"
        "      state: running\n"
        "\n"
        "1 to build, 1 to create, 1 to start\n"
    )


def test_plan_marks_what_it_costs(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    service.the_plan = restart()
    assert "  ~ stop vm dev to restart it  [restart]\n      memory: 512MiB → 1GiB (restart)\n" in run("plan").stdout
    service.the_plan = removal()
    assert "  - move vm old to the trash\n      no longer in the file\n      protect: false\n" in run("plan").stdout
    service.the_plan = held()
    assert (
        "held back\n  ! vm/dev: image: base → other (recreate)\n      banger apply --allow-recreate"
        in run("plan").stdout
    )


@pytest.mark.parametrize(("plan", "code"), [(creation(), 3), (held(), 3), (Plan(environment="demo"), 0)])
def test_plan_exit_code(run: Run, service: FakeService, spec: SimpleNamespace, plan: Plan, code: int) -> None:
    service.the_plan = plan
    assert run("plan").exit_code == 0
    assert run("plan", "--exit-code").exit_code == code


def test_plan_as_json_follows_its_schema(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    schema = json.loads(resources.schema("plan"))
    for plan in (creation(), restart(), held()):
        service.the_plan = plan
        found = json.loads(run("plan", "-o", "json").stdout)
        jsonschema.validate(found, schema)
        assert found == plan.to_json()


def test_options_reach_the_service(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    run(
        "apply", "--allow-recreate", "--no-wait", "--timeout", "2m", "--parallel", "3", "--set", "a=1", "--set", "b=x=y"
    )
    name, environment, source, options = service.calls[0]
    assert (name, environment, source.path, source.digest) == ("apply", "demo", Path("banger.yaml"), "d" * 64)
    assert (options.allow_recreate, options.wait, options.timeout, options.parallel) == (True, False, 120.0, 3)
    assert spec.settings == {"a": "1", "b": "x=y"}


def test_every_option_has_its_variable(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    env = {
        "BANGER_ALLOW_RECREATE": "1",
        "BANGER_WAIT": "0",
        "BANGER_TIMEOUT": "90s",
        "BANGER_PARALLEL": "2",
        "BANGER_SET": "a=1 b=2",
    }
    run("apply", env=env)
    options = service.calls[0][3]
    assert (options.allow_recreate, options.wait, options.timeout, options.parallel) == (True, False, 90.0, 2)
    assert spec.settings == {"a": "1", "b": "2"}


def test_apply_ends_with_the_vms_and_the_way_in(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    result = run("apply")
    assert result.exit_code == 0
    assert result.stdout == "NAME  ENVIRONMENT  STATE  ADDRESS\ndev   demo         ready  127.0.0.1\n"
    assert "build image base: half way\n" in result.stderr
    assert "done build image/base (1.5 s)\n" in result.stderr
    assert result.stderr.endswith("get in with: banger ssh dev\n")


def test_apply_of_nothing_says_so(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    service.the_plan = Plan(environment="demo")
    result = run("apply")
    assert result.exit_code == 0
    assert result.stderr.startswith("environment demo: nothing to do\n")


def test_quiet_prints_nothing_but_asked_for_data(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    result = run("apply", "-q")
    assert (result.stdout, result.stderr) == ("", "")
    assert run("apply", "-q", "-o", "name").output == "vm/demo/dev\n"


def test_failures_are_all_told(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    plan = creation()
    build, create, start = plan.steps
    error = BangerError("apt: no such package", hint="look", replay="mmdebstrap …")
    service.result = ApplyResult(
        plan=plan,
        outcomes=(
            Outcome(step=build.id, object="image/base", result=Result.FAILED, error=error),
            Outcome(step=create.id, object="vm/dev", result=Result.SKIPPED, blocked_by=build.id),
            Outcome(step=start.id, object="vm/dev", result=Result.SKIPPED, blocked_by=create.id),
        ),
    )
    result = run("apply", "-q")
    assert result.exit_code == 1
    assert result.stderr == (
        "banger: build image/base failed: apt: no such package\n"
        "  hint: look\n"
        "  replay: mmdebstrap …\n"
        "banger: create vm/dev was not tried: it needs build image/base\n"
        "banger: start vm/dev was not tried: it needs create vm/dev\n"
    )


def test_what_is_held_back_fails_and_says_what_releases_it(
    run: Run, service: FakeService, spec: SimpleNamespace
) -> None:
    service.the_plan = held()
    result = run("apply")
    assert result.exit_code == 1
    assert "held back: vm/dev: image: base → other (recreate)\n  hint: banger apply --allow-recreate\n" in result.stderr


def test_not_ready_is_4(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    service.result = ApplyResult(plan=creation(), not_ready=(vm_status(state=State.STARTING, message="ssh: refused"),))
    result = run("apply")
    assert result.exit_code == 4
    assert "banger: vm dev is not ready: ssh: refused\n  hint: banger logs demo/dev\n" in result.stderr


@pytest.mark.parametrize(
    ("plan", "answer", "asked", "code"),
    [
        (restart(), "n\n", True, 1),
        (restart(), "\n", True, 1),
        (restart(), "y\n", True, 0),
        (removal(), "n\n", True, 1),
        (creation(), "", False, 0),
    ],
)
def test_a_terminal_is_asked_before_something_is_taken(
    run: Run,
    service: FakeService,
    spec: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
    answer: str,
    asked: bool,
    code: int,
) -> None:
    monkeypatch.setattr(converge, "asks", lambda: True)
    service.the_plan = plan
    result = run("apply", input=answer)
    assert ("Go ahead?" in result.stderr) is asked
    assert result.exit_code == code
    assert ("nothing was done" in result.stderr) is (code == 1)


def test_yes_and_a_missing_terminal_are_consent(
    run: Run, service: FakeService, spec: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.the_plan = removal()
    assert run("apply").exit_code == 0
    monkeypatch.setattr(converge, "asks", lambda: True)
    result = run("apply", "--yes")
    assert result.exit_code == 0
    assert "Go ahead?" not in result.output


def test_without_any_file(run: Run, service: FakeService) -> None:
    result = run("apply")
    assert result.exit_code == 2
    assert "banger init" in result.stderr
    assert service.calls == []


def saved(run: Run, *options: str) -> Path:
    path = Path("saved.json")
    assert run("plan", "--out", str(path), "-q", *options).exit_code == 0
    return path


def test_a_saved_plan_is_documented_and_private(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    path = saved(run, "--set", "tag=1", "--allow-recreate")
    data = json.loads(path.read_text())
    schema = json.loads(resources.schema("plan"))
    whole = jsonschema.Draft202012Validator(schema)
    whole.evolve(schema=schema["$defs"]["savedPlan"]).validate(data)
    assert path.stat().st_mode & 0o777 == 0o600
    assert data["source"] == {"path": str(Path("banger.yaml").absolute()), "digest": spec.digest}
    assert data["options"] == {"set": {"tag": "1"}, "allowRecreate": True}


def test_a_saved_plan_is_applied_with_its_own_options(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    path = saved(run, "--set", "tag=1", "--allow-recreate")
    spec.settings = None
    result = run("apply", str(path), env={"BANGER_FILE": "elsewhere.yaml"})
    assert result.exit_code == 0
    options = service.calls[-2][3]
    assert (options.expect, options.allow_recreate) == (service.the_plan.fingerprint, True)
    assert spec.settings == {"tag": "1"}
    assert spec.path == Path("banger.yaml").absolute()


def test_a_saved_plan_is_refused_once_the_file_moved(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    path = saved(run)
    service.calls.clear()
    spec.digest = "e" * 64
    result = run("apply", str(path))
    assert result.exit_code == 1
    assert "has changed since the plan was saved" in result.stderr
    assert service.calls == []


@pytest.mark.parametrize("option", [("-f", "banger.yaml"), ("--set", "a=1"), ("--allow-recreate",)])
def test_a_saved_plan_takes_no_other_options(
    run: Run, service: FakeService, spec: SimpleNamespace, option: tuple[str, ...]
) -> None:
    assert run("apply", str(saved(run)), *option).exit_code == 2


def damaged() -> dict[str, bytes]:
    good = {
        "apiVersion": "banger/v1",
        "kind": "SavedPlan",
        "plan": creation().to_json(),
        "source": {"path": "/x", "digest": "0"},
        "options": {"set": {}, "allowRecreate": False},
    }
    planfile._decode(good)
    edited = json.loads(json.dumps(good))
    edited["plan"]["steps"][0]["reason"] = "harmless"
    return {
        "empty": b"",
        "not JSON": b"apiVersion: banger/v1\n",
        "cut short": json.dumps(good).encode()[:-40],
        "a plain plan": json.dumps(good["plan"]).encode(),
        "edited": json.dumps(edited).encode(),
        "a list": b"[]",
        "deep": b"[" * 100_000,
        "wrong types": json.dumps({**good, "options": {"set": [], "allowRecreate": "no"}}).encode(),
        "no options": json.dumps({**good, "options": None}).encode(),
        "not text": b"\xff\xfe\x00",
    }


@pytest.mark.parametrize("case", damaged())
def test_what_is_no_saved_plan(run: Run, service: FakeService, spec: SimpleNamespace, case: str) -> None:
    Path("bad.json").write_bytes(damaged()[case])
    result = run("apply", "bad.json")
    assert result.exit_code == 2
    assert "not a saved plan" in result.stderr
    assert service.calls == []


def test_saving_where_one_may_not_is_an_error(run: Run, service: FakeService, spec: SimpleNamespace) -> None:
    result = run("plan", "--out", "missing/folder/plan.json")
    assert result.exit_code == 1
    assert "cannot write missing/folder/plan.json: No such file" in result.stderr


def test_delete_takes_the_name_the_file_or_the_only_one(run: Run, service: FakeService) -> None:
    service.the_plan = removal()
    service.objects = [vm_status(environment="lab")]
    assert run("delete", "-q").exit_code == 0
    assert service.calls[-1][:2] == ("delete", "lab")
    assert run("delete", "other").exit_code == 2
    service.objects += [vm_status()]
    result = run("delete")
    assert result.exit_code == 2
    assert "name one of: demo, lab" in result.stderr
    Path("banger.yaml").write_text("name: demo\n")
    assert run("delete", "-q").exit_code == 0
    assert service.calls[-1][:2] == ("delete", "demo")


def test_delete_on_a_terminal_asks(run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "asks", lambda: True)
    service.the_plan = removal()
    result = run("delete", "demo", input="n\n")
    assert (result.exit_code, "is gone" in result.stderr) == (1, False)
