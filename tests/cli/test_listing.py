"""ps, status, wait: what they ask for, and the four forms of what they print."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from reconciler.cli import resources
from reconciler.lib.errors import BangerError, NotReadyError
from reconciler.model.nouns import Noun
from reconciler.model.status import ObjectStatus, State
from tests.cli.conftest import SPEC, Run
from tests.fakes.service import FakeService, vm_status

IMAGE = ObjectStatus(kind=Noun.IMAGE, name="base", environment="demo", state=State.PRESENT, ready=True)


def test_ps_as_a_table(run: Run, service: FakeService) -> None:
    service.objects = [vm_status(), vm_status("web-1", "lab", State.FAILED, "ssh: no\nanswer \x1b]0;boo\x07")]
    result = run("ps")
    assert result.exit_code == 0
    assert result.stdout == (
        "NAME   ENVIRONMENT  STATE   ADDRESS    MESSAGE\n"
        "dev    demo         ready   127.0.0.1\n"
        "web-1  lab          failed  127.0.0.1  ssh: no answer ^[]0;boo^G\n"
    )
    assert service.closed == 1


def test_status_lists_every_kind(run: Run, service: FakeService) -> None:
    service.objects = [IMAGE, vm_status()]
    assert run("status").stdout == (
        "KIND   NAME  ENVIRONMENT  STATE    ADDRESS\n"
        "image  base  demo         present  -\n"
        "vm     dev   demo         ready    127.0.0.1\n"
    )


@pytest.mark.parametrize("command", ["ps", "status"])
def test_json_and_yaml_are_the_same_documented_document(run: Run, service: FakeService, command: str) -> None:
    service.objects = [vm_status(message="it is: 'on' #1\n\t\x07é\u2028", cpus=2, ports=[], labels={"no": None})]
    found = json.loads(run(command, "-o", "json").stdout)
    jsonschema.validate(found, json.loads(resources.schema("status")))
    assert found["items"] == [item.to_json() for item in service.objects]
    assert yaml.safe_load(run(command, "-o", "yaml").stdout) == found


def test_names_are_references_that_other_commands_take(run: Run, service: FakeService) -> None:
    service.objects = [IMAGE, vm_status()]
    assert run("status", "-o", "name").stdout == "image/demo/base\nvm/demo/dev\n"
    assert run("wait", run("ps", "-o", "name").stdout.strip()).exit_code == 0
    assert ("wait", "demo", ("dev",), None) in service.calls


def test_nothing_is_an_empty_listing_and_a_word_on_stderr(run: Run, service: FakeService) -> None:
    service.objects = []
    result = run("ps")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no VMs\n")
    assert json.loads(run("ps", "-o", "json").stdout) == {"apiVersion": "banger/v1", "items": []}


@pytest.mark.parametrize(
    ("args", "environment"),
    [((), None), (("-f", "other.yaml"), "other"), (("-A", "-f", "other.yaml"), None)],
)
def test_which_environment(run: Run, service: FakeService, args: tuple[str, ...], environment: str | None) -> None:
    Path("other.yaml").write_text(SPEC.replace("demo", "other"))
    run("ps", *args)
    assert service.calls == [("vms", environment)]


def test_the_file_here_and_its_variable(run: Run, service: FakeService) -> None:
    Path("banger.yaml").write_text(SPEC)
    Path("other.yaml").write_text(SPEC.replace("demo", "other"))
    run("status")
    run("status", env={"BANGER_FILE": "other.yaml"})
    assert service.calls == [("status", "demo"), ("status", "other")]


def test_wait_without_names_covers_every_environment(run: Run, service: FakeService) -> None:
    service.objects = [vm_status(), vm_status("web", "lab")]
    assert run("wait", "--timeout", "0s").exit_code == 0
    assert [call[:3] for call in service.calls] == [("wait", "demo", ()), ("wait", "lab", ())]


def test_wait_tells_all_that_is_late_and_exits_with_4(run: Run, service: FakeService) -> None:
    service.objects = [vm_status(state=State.STARTING), vm_status("web", "lab")]
    service.error = NotReadyError("vm x is not ready", hint="banger logs x")
    result = run("wait")
    assert result.exit_code == 4
    assert result.stderr.count("vm x is not ready") == 2


def test_a_failure_shows_cause_hint_and_replay(run: Run, service: FakeService) -> None:
    service.error = BangerError("no \x1b[2Jstate", hint="do this", replay="ls -l")
    result = run("ps")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "banger: no ^[[2Jstate\n  hint: do this\n  replay: ls -l\n"


def test_variables_are_named_after_the_option_alone(run: Run, service: FakeService) -> None:
    result = run("ps", env={"BANGER_OUTPUT": "name", "BANGER_PS_OUTPUT": "json"})
    assert result.stdout == "vm/demo/dev\n"
    assert run("ps", "-o", "table", env={"BANGER_OUTPUT": "name"}).stdout.startswith("NAME")
    assert run("ps", env={"BANGER_OUTPUT": "xml"}).exit_code == 2
