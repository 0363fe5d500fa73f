"""controller, approve, pause, resume, events, status -w, wait --for: what they ask for, and what they print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reconciler.api.service import WaitFor
from reconciler.cli import resources, watching, wire
from reconciler.cli.options import Output
from reconciler.model.status import ObjectStatus, State
from tests.cli.conftest import SPEC, Run
from tests.fakes.service import FakeService, event, vm_status


def test_approve_says_what_goes_on(run: Run, service: FakeService) -> None:
    service.awaiting = {"0123456789ab": "demo"}
    assert "environment demo goes on" in run("approve", "0123456789ab").stderr
    refused = run("approve", "0123456789ab")
    assert refused.exit_code == 2
    assert "no plan waits" in refused.stderr


def test_a_vm_or_a_whole_environment_is_paused_and_resumed(run: Run, service: FakeService) -> None:
    assert "paused vm demo/dev" in run("pause", "dev").stderr
    assert "paused already" in run("pause", "dev").stderr
    assert "paused environment demo" in run("pause").stderr
    assert service.paused == {("demo", "dev"), ("demo", None)}
    assert "resumed vm demo/dev" in run("resume", "dev").stderr
    assert "looked at again" in run("resume", "dev").stderr
    run("resume")
    assert service.paused == set()


def test_events_as_a_table(run: Run, service: FakeService) -> None:
    service.happened = [event(1), event(2, "failed: \x1b[2Jno\nspace", warning=True, reason="Failed")]
    assert run("events").stdout == (
        "TIME                  TYPE     REASON   OBJECT       MESSAGE\n"
        "1970-01-01T00:16:41Z  Normal   Started  demo/vm/dev  start vm dev\n"
        "1970-01-01T00:16:42Z  Warning  Failed   demo/vm/dev  failed: ^[[2Jno space\n"
    )
    assert run("events", "--after", "1", "-o", "name").stdout == "2\n"


def test_events_as_json_are_a_listing_and_one_per_line_when_followed(run: Run, service: FakeService) -> None:
    service.happened = [event(1), event(2)]
    document = json.loads(run("events", "-o", "json").stdout)
    assert [item["id"] for item in document["items"]] == [1, 2]
    for item in document["items"]:
        jsonschema.validate(item, json.loads(resources.schema("event")))
    followed = run("events", "-f", "-o", "json").stdout.splitlines()
    assert [json.loads(line) for line in followed] == document["items"]
    assert ("events", None, None, True) in service.calls


def test_events_of_the_file_s_environment_unless_all_are_wanted(run: Run, service: FakeService) -> None:
    Path("banger.yaml").write_text(SPEC)
    run("events")
    run("events", "-A")
    assert [call for call in service.calls if call[0] == "events"] == [
        ("events", "demo", None, False),
        ("events", None, None, False),
    ]


@pytest.mark.parametrize("condition", [WaitFor.STOPPED, WaitFor.GONE])
def test_wait_for(run: Run, service: FakeService, condition: WaitFor) -> None:
    assert run("wait", "--for", condition.value, "dev", "--timeout", "5s").exit_code == 0
    (call,) = [call for call in service.calls if call[0] == "wait"]
    assert call[:3] == ("wait", "demo", ("dev",)) and call[4] is condition


class Looks:
    """One listing after another; the last one ends the watching as Ctrl-C would."""

    def __init__(self, *listings: Sequence[ObjectStatus]) -> None:
        self.listings = list(listings)

    def __call__(self) -> Sequence[ObjectStatus]:
        if not self.listings:
            raise KeyboardInterrupt
        return self.listings.pop(0)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output.NAME, ["vm/demo/dev", "vm/demo/web", "vm/demo/dev"]),
        (
            Output.TABLE,
            [
                "KIND  NAME  ENVIRONMENT  STATE  ADDRESS",
                "vm    dev   demo         ready  127.0.0.1",
                "vm    web   demo         ready  127.0.0.1",
                "KIND  NAME  ENVIRONMENT  STATE   ADDRESS",
                "vm    dev   demo         failed  127.0.0.1",
                "vm web is gone",
            ],
        ),
    ],
)
def test_watching_without_a_terminal_prints_what_changed(
    capsys: pytest.CaptureFixture[str], output: Output, expected: list[str]
) -> None:
    dev, web = vm_status(), vm_status("web")
    failed = replace(dev, state=State.FAILED)
    with pytest.raises(KeyboardInterrupt):
        watching.watch(
            Looks([dev, web], [dev, web], [failed, web], [failed]), output, kinds=True, pause=lambda seconds: None
        )
    assert capsys.readouterr().out.splitlines() == expected


def test_watching_as_json_is_one_changed_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    dev = vm_status()
    failed = replace(dev, state=State.FAILED)
    with pytest.raises(KeyboardInterrupt):
        watching.watch(Looks([dev], [dev], [failed]), Output.JSON, kinds=True, pause=lambda seconds: None)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [dev.to_json(), failed.to_json()]


def test_the_controller_watches_what_it_is_told_to(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[Path], str]] = []
    monkeypatch.setattr(wire, "run_controller", lambda sources, form: started.append((list(sources), form)))
    assert run("controller").exit_code == 0
    Path("banger.yaml").write_text(SPEC)
    assert run("controller").exit_code == 0
    Path("banger.d").mkdir()
    assert (
        run("controller", "-f", "one.yaml", "-f", "two.yaml", "-d", "banger.d", "--log-format", "json").exit_code == 0
    )
    here = Path.cwd()
    assert started == [
        ([], "auto"),
        ([here / "banger.yaml"], "auto"),
        ([here / "one.yaml", here / "two.yaml", here / "banger.d"], "json"),
    ]
    refused = run("controller", "-d", "nowhere")
    assert refused.exit_code == 2 and "nowhere is no folder" in refused.stderr
