"""`banger exec`: what runs in the guest, and what is said of its copy of a repository before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from reconciler.api.service import Channel, WayIn
from reconciler.cli import wire
from reconciler.cli.commands import enter
from reconciler.lib.errors import BangerError
from reconciler.model.vm import Workspace
from reconciler.workspace.push import Pushed, Request
from tests.cli.conftest import Run
from tests.fakes.service import FakeService


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would have been run in a guest; it exits with 7."""
    seen: list[tuple[Any, ...]] = []

    def over_ssh(entry: list[str], command: list[str], **more: Any) -> int:
        seen.append(("ssh", entry, command, more))
        return 7

    def by_agent(way: WayIn, command: list[str], **more: Any) -> int:
        seen.append(("agent", way.user, command, more))
        return 7

    monkeypatch.setattr(enter.joining, "require", lambda program, package: f"/usr/bin/{program}")
    monkeypatch.setattr(enter.guestrun, "over_ssh", over_ssh)
    monkeypatch.setattr(wire, "run_by_agent", by_agent)
    return seen


PLAIN: dict[str, Any] = {"tty": False, "cwd": None, "env": {}, "timeout": None}


@pytest.mark.parametrize(
    ("args", "ref", "user", "command", "more"),
    [
        (("dev", "--", "cat", "/etc/os-release"), "demo/dev", None, ["cat", "/etc/os-release"], {}),
        (("dev", "ls", "-l", "--help"), "demo/dev", None, ["ls", "-l", "--help"], {}),
        (("dev", "--", "--", "-x"), "demo/dev", None, ["--", "-x"], {}),
        (("vm/dev", "sh", "-c", "echo 'a b' $X"), "demo/dev", None, ["sh", "-c", "echo 'a b' $X"], {}),
        (("vm/demo/dev", "-f"), "demo/dev", None, ["-f"], {}),
        (("-it", "dev", "top"), "demo/dev", None, ["top"], {"tty": True}),
        (("--user", "me", "--cwd", "/srv", "dev", "ls"), "demo/dev", "me", ["ls"], {"cwd": "/srv"}),
        (("--env", "A=b=c", "--env", "D=", "dev", "ls"), "demo/dev", None, ["ls"], {"env": {"A": "b=c", "D": ""}}),
        (("--timeout", "2m", "dev", "ls"), "demo/dev", None, ["ls"], {"timeout": 120.0}),
    ],
)
def test_exec_runs_it_in_the_guest(
    run: Run,
    service: FakeService,
    ran: list[tuple[Any, ...]],
    args: tuple[str, ...],
    ref: str,
    user: str | None,
    command: list[str],
    more: dict[str, Any],
) -> None:
    assert run("exec", *args).exit_code == 7
    assert service.calls[-1] == ("way_in", ref, user)
    assert ran == [("ssh", ["/usr/bin/ssh", *service.way.argv], command, {**PLAIN, **more})]
    assert service.closed == 1


def test_exec_without_a_network_asks_the_agent_and_v_says_so(
    run: Run, service: FakeService, ran: list[tuple[Any, ...]]
) -> None:
    assert "over ssh, as root" in run("exec", "-v", "dev", "ls").stderr
    service.way = dataclasses.replace(service.way, channel=Channel.AGENT)
    result = run("exec", "-v", "dev", "ls")
    assert (result.exit_code, "over the agent" in result.stderr) == (7, True)
    assert ran[-1] == ("agent", "root", ["ls"], {"cwd": None, "env": {}, "timeout": None})
    refused = run("exec", "-t", "dev", "top")
    assert (refused.exit_code, "no terminal" in refused.stderr) == (2, True)


@pytest.fixture
def shipped(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A VM with a workspace: what a look at its copy gives, and what was done about it."""
    seen: dict[str, Any] = {"behind": False, "looks": 0, "sent": []}

    def behind(enter: Any, request: Request) -> bool:
        seen["looks"] += 1
        if isinstance(seen["behind"], BangerError):
            raise seen["behind"]
        return bool(seen["behind"])

    def send(enter: Any, request: Request, progress: Any) -> Pushed:
        seen["sent"].append((request.guest, *enter(["sh", "-c", "a b"])))
        if isinstance(seen["behind"], BangerError):
            raise seen["behind"]
        return Pushed(snapshot="1" * 40, head="2" * 40, branch="main", sent=True, commits=1)

    monkeypatch.setattr("reconciler.cli.workspaces.standing.behind", behind)
    monkeypatch.setattr("reconciler.cli.workspaces.push.push", send)
    service.way = dataclasses.replace(service.way, workspace=Workspace(host="/src", guest="/root/repo"))
    return seen


def test_exec_says_that_a_copy_is_old(run: Run, shipped: dict[str, Any], ran: list[tuple[Any, ...]]) -> None:
    assert run("exec", "dev", "ls").stderr == ""
    shipped["behind"] = True
    warned = run("exec", "dev", "ls")
    assert (warned.exit_code, "lacks changes of /src: --sync" in warned.stderr) == (7, True)
    assert run("exec", "--no-sync", "dev", "ls").stderr == ""
    assert (shipped["looks"], shipped["sent"], len(ran)) == (2, [], 3)


def test_a_copy_that_cannot_be_looked_at_keeps_no_command(
    run: Run, shipped: dict[str, Any], ran: list[tuple[Any, ...]]
) -> None:
    shipped["behind"] = BangerError("no repository any more")
    assert run("exec", "dev", "ls").stderr == ""
    assert "no repository any more" in run("exec", "-v", "dev", "ls").stderr
    assert len(ran) == 2


def test_exec_sync_sends_first(run: Run, shipped: dict[str, Any], ran: list[tuple[Any, ...]]) -> None:
    assert "got 1 commit" in run("exec", "--sync", "dev", "ls").stderr
    entering = ("/usr/bin/ssh", "-p", "2222", "--", "127.0.0.1", "sh -c 'a b'")
    assert shipped["sent"] == [("/root/repo", *entering)]
    assert len(ran) == 1
    shipped["behind"] = BangerError("the guest has work of its own")
    refused = run("exec", "--sync", "dev", "ls")
    assert (refused.exit_code, "work of its own" in refused.stderr) == (1, True)
    assert len(ran) == 1


def test_exec_for_another_user_asks_the_copys_owner(
    run: Run, service: FakeService, shipped: dict[str, Any], ran: list[tuple[Any, ...]]
) -> None:
    run("exec", "--user", "me", "dev", "ls")
    assert [call for call in service.calls if call[0] == "way_in"] == [
        ("way_in", "demo/dev", "me"),
        ("way_in", "demo/dev", None),
    ]
    assert shipped["looks"] == 1


def test_nothing_to_sync_is_an_error(run: Run, ran: list[tuple[Any, ...]]) -> None:
    refused = run("exec", "--sync", "dev", "ls")
    assert (refused.exit_code, "no workspace" in refused.stderr, ran) == (2, True, [])


@pytest.mark.parametrize("name", ["1A", "A-B", "ü", ""])
def test_what_is_no_variable_is_refused(run: Run, ran: list[tuple[Any, ...]], name: str) -> None:
    assert run("exec", "--env", f"{name}=x", "dev", "ls").exit_code == 2
    assert ran == []
