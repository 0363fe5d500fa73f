"""Whatever can be asked for, a client of the socket gets what the service itself gives."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from reconciler.api.client import RemoteService, reachable
from reconciler.api.server import Server
from reconciler.api.service import (
    ApplyOptions,
    ApplyResult,
    Channel,
    Service,
    ServiceInfo,
    Source,
    SourceInfo,
    SshConfig,
    SshOptions,
    TrashEntry,
    VmRef,
    VmVerb,
    WaitFor,
)
from reconciler.lib.errors import BangerError, ErrorClass, NotReadyError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step
from reconciler.model.retention import CachePolicy, EntryKind, Limits, Rule
from reconciler.model.status import Condition, ConditionType, State
from reconciler.model.vm import Workspace
from tests.api.conftest import Recorder
from tests.fakes import service as fake
from tests.fakes.service import FakeService

DEV = VmRef(environment="demo", name="dev")
OPTIONS = ApplyOptions(
    allow_recreate=True, expect=fake.creation().fingerprint, wait=False, timeout=12.5, parallel=3, operation="op-7"
)
SOURCE = Source(path=Path("/home/me/banger.yaml"), digest="ab" * 32)


def test_every_method_of_the_service_is_there(remote: RemoteService) -> None:
    for name, method in inspect.getmembers(Service, inspect.isfunction):
        if not name.startswith("_"):
            assert (
                inspect.signature(method).parameters.keys() - {"self"}
                == inspect.signature(getattr(remote, name)).parameters.keys()
            ), name


def test_a_plan(service: FakeService, remote: RemoteService) -> None:
    waiting = dataclasses.replace(fake.held(), approval="0123456789ab")
    for plan in (fake.creation(), fake.restart(), fake.removal(), fake.held(), waiting, Plan(environment="demo")):
        service.the_plan = plan
        assert remote.plan(fake.desired(), OPTIONS) == plan
    assert service.calls[-1] == ("plan", "demo", OPTIONS)


def test_an_apply_with_its_progress(service: FakeService, remote: RemoteService) -> None:
    here, there = Recorder(), Recorder()
    direct = FakeService()
    expected = direct.apply(fake.desired(), SOURCE, OPTIONS, here, lambda plan: True)

    shown: list[Plan] = []
    result = remote.apply(fake.desired(), SOURCE, OPTIONS, there, lambda plan: not shown.append(plan))

    assert result == expected
    assert there.told == here.told
    assert shown == [service.the_plan]
    assert service.calls[-1] == ("apply", "demo", SOURCE, OPTIONS)


def test_the_desired_state_arrives_whole(service: FakeService, remote: RemoteService) -> None:
    arrived = []
    service.plan = lambda desired, options: arrived.append(desired) or fake.creation()  # type: ignore[method-assign]
    wanted = fake.desired()
    remote.plan(wanted, ApplyOptions())
    assert arrived == [wanted]


def test_a_relative_source_is_made_absolute(
    service: FakeService, remote: RemoteService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    source = dataclasses.replace(SOURCE, path=Path("banger.yaml"))
    remote.apply(fake.desired(), source, ApplyOptions(), Recorder(), lambda plan: True)
    assert service.calls[-1][2].path == tmp_path / "banger.yaml"


def test_failures_within_a_result(service: FakeService, remote: RemoteService) -> None:
    step = service.the_plan.steps[0]
    error = BangerError("no space", hint="make some", replay="df -h", error_class=ErrorClass.RETRYABLE)
    outcomes = (
        Outcome(step=step.id, object=step.action.object, result=Result.FAILED, seconds=0.25, attempts=4, error=error),
        Outcome(step="start vm/dev", object="vm/dev", result=Result.SKIPPED, blocked_by=step.id),
    )
    late = fake.vm_status(state=State.STARTING, message="no banner yet")
    service.result = ApplyResult(plan=service.the_plan, outcomes=outcomes, not_ready=(late,))

    result = remote.apply(fake.desired(), SOURCE, ApplyOptions(), Recorder(), lambda plan: True)

    assert result.not_ready == (late,)
    assert result.outcomes[1] == outcomes[1]
    assert dataclasses.replace(result.outcomes[0], error=None) == dataclasses.replace(outcomes[0], error=None)
    found = result.outcomes[0].error
    assert found is not None
    assert (found.cause, found.hint, found.replay, found.error_class) == (
        "no space",
        "make some",
        "df -h",
        ErrorClass.RETRYABLE,
    )


def test_retries_waits_and_notes_are_told(service: FakeService, remote: RemoteService) -> None:
    step = service.the_plan.steps[0]
    newer = Step(step.action, needs=("fetch kernel/debian",))
    late = fake.vm_status(state=State.STARTING)

    def vm(verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Recorder) -> None:
        reporter.retrying(step, BangerError("mirror is away"), 2.5)
        reporter.progress(newer, None, "at it again")
        reporter.waiting([late])
        reporter.note("ein Wort: größer → ✓")

    service.vm = vm  # type: ignore[assignment]
    recorder = Recorder()
    remote.vm(VmVerb.START, DEV, ApplyOptions(), recorder)
    assert recorder.told == [
        ("retrying", step, "mirror is away", 2.5),
        ("progress", newer, None, "at it again"),
        ("waiting", [late]),
        ("note", "ein Wort: größer → ✓"),
    ]


def test_a_refused_plan_is_not_applied(service: FakeService, remote: RemoteService) -> None:
    result = remote.apply(fake.desired(), SOURCE, ApplyOptions(), Recorder(), lambda plan: False)
    assert not result.approved
    assert result.plan == service.the_plan
    assert [call[0] for call in service.calls] == ["plan"]


def test_a_plan_that_changes_under_way_is_asked_about_again(service: FakeService, remote: RemoteService) -> None:
    """Consent is to one plan: what the host has become meanwhile needs consent of its own."""
    shown = []

    def approve(plan: Plan) -> bool:
        shown.append(plan)
        if len(shown) == 1:
            service.the_plan = fake.removal()  # after the question, before the answer arrives
        return True

    result = remote.apply(fake.desired(), SOURCE, ApplyOptions(), Recorder(), approve)
    assert shown == [fake.creation(), fake.removal()]
    assert result.approved
    assert result.plan == fake.removal()


def test_a_host_that_never_rests_ends_the_questions(service: FakeService, remote: RemoteService) -> None:
    plans = [fake.creation(), fake.removal()]

    def approve(plan: Plan) -> bool:
        plans.reverse()
        service.the_plan = plans[0] if plans[0] != plan else plans[1]
        return True

    with pytest.raises(BangerError, match="faster") as caught:
        remote.apply(fake.desired(), SOURCE, ApplyOptions(), Recorder(), approve)
    assert caught.value.error_class.worth_retrying


def test_a_saved_plan_that_no_longer_fits_is_the_services_business(service: FakeService, remote: RemoteService) -> None:
    """Nobody is asked about a plan that will not be executed."""
    asked: list[Plan] = []
    options = ApplyOptions(expect="0" * 16, operation="op-9")
    result = remote.apply(fake.desired(), SOURCE, options, Recorder(), lambda plan: not asked.append(plan))
    assert service.calls[-1] == ("apply", "demo", SOURCE, options)
    assert not result.approved
    assert not asked


def test_delete_asks_first(service: FakeService, remote: RemoteService) -> None:
    service.the_plan = fake.removal()
    shown: list[Plan] = []
    refused = remote.delete("demo", ApplyOptions(), Recorder(), lambda plan: bool(shown.append(plan)))
    assert shown == [fake.removal()]
    assert not refused.approved

    recorder = Recorder()
    done = remote.delete("demo", ApplyOptions(parallel=2, operation="op-8"), recorder, lambda plan: True)
    assert done.approved
    assert [told[0] for told in recorder.told] == ["started", "progress", "finished"]
    assert service.calls[-1] == ("delete", "demo", ApplyOptions(parallel=2, operation="op-8"))


def test_listings(service: FakeService, remote: RemoteService) -> None:
    condition = Condition(
        type=ConditionType.DEGRADED, status=None, reason="Gone", message="a → b", since=1_700_000_000.0
    )
    strange = dataclasses.replace(
        fake.vm_status("web", "other", State.UNKNOWN, ports=["80"], generation=3), conditions=(condition,), address=None
    )
    service.objects = [fake.vm_status(), strange]
    assert remote.status(None) == service.objects
    assert remote.status("other") == [strange]
    assert remote.vms("demo") == [fake.vm_status()]
    assert service.calls[-1] == ("vms", "demo")
    assert remote.environments() == ["demo", "other"]


def test_resolve(remote: RemoteService) -> None:
    assert remote.resolve("dev", None) == DEV
    assert remote.resolve("demo/dev", None) == DEV


def test_the_verbs(service: FakeService, remote: RemoteService) -> None:
    for verb in VmVerb:
        remote.vm(verb, DEV, OPTIONS, Recorder())
        assert service.calls[-1] == ("vm", verb, "demo/dev", OPTIONS)


def test_commit(service: FakeService, remote: RemoteService) -> None:
    assert remote.commit(DEV, "gold", OPTIONS, Recorder()) == service.the_committed
    assert service.calls[-1] == ("commit", "demo/dev", "gold", OPTIONS)


def test_the_trash(service: FakeService, remote: RemoteService) -> None:
    service.trashed = [TrashEntry(entry="demo.old.ab", environment="demo", name="old", trashed_at=12.25, size=1 << 40)]
    assert remote.trash() == service.trashed
    assert remote.restore("old", None, "demo.old.ab", OPTIONS, Recorder()) == VmRef(environment="demo", name="old")
    assert service.calls[-1] == ("restore", "old", None, "demo.old.ab", OPTIONS)
    assert remote.discard("dev-1") == 1 << 20
    assert service.calls[-1] == ("discard", "dev-1")


@pytest.mark.parametrize("condition", WaitFor)
def test_wait(service: FakeService, remote: RemoteService, condition: WaitFor) -> None:
    recorder = Recorder()
    remote.wait("demo", ["dev", "web"], None, recorder, condition)
    more = () if condition is WaitFor.READY else (condition,)
    assert service.calls[-1] == ("wait", "demo", ("dev", "web"), None, *more)
    assert recorder.told == [("waiting", service.objects)]


def test_ways_into_a_vm(service: FakeService, remote: RemoteService) -> None:
    assert remote.ssh_argv(DEV, ["echo", "a b", "ü"], False) == [*service.argv, "echo", "a b", "ü"]
    assert remote.ssh_argv(DEV, None, None) == service.argv
    assert service.calls[-1] == ("ssh_argv", "demo/dev", None, None)
    more = SshOptions(user="me", lend_agent=True, forwards=("-L", "1:h:2"))
    remote.ssh_argv(DEV, None, None, more)
    assert service.calls[-1] == ("ssh_argv", "demo/dev", None, None, more)
    assert remote.way_in(DEV, None) == service.way
    service.way = dataclasses.replace(
        service.way, channel=Channel.AGENT, argv=(), master=("ssh", "-M"), control=Path("/c"), entry=Path("/e f")
    )
    assert remote.way_in(DEV, "me") == service.way
    assert service.calls[-1] == ("way_in", "demo/dev", "me")
    copy = Workspace(host="/a b", guest="/root/repo", untracked=True)
    service.way = dataclasses.replace(service.way, workspace=copy)
    assert remote.way_in(DEV, None).workspace == copy
    assert remote.console_log(DEV) == service.log


def test_what_vms_use(service: FakeService, remote: RemoteService) -> None:
    service.the_usage = [[fake.vm_usage(), fake.vm_usage("off", uptime=None)]]
    assert remote.usage("demo") == service.the_usage[0]
    assert service.calls[-1] == ("usage", "demo")
    assert remote.usage(None) == service.the_usage[0]


def test_ssh_config(service: FakeService, remote: RemoteService, tmp_path: Path) -> None:
    service.ssh_file, service.ssh_text = tmp_path / "a config", "Host dev.demo.vm\n  # ü\n"
    assert remote.ssh_config() == SshConfig(path=service.ssh_file, text=service.ssh_text, kept=False)
    remote.keep_ssh_config(True)
    assert remote.ssh_config().kept
    remote.keep_ssh_config(False)
    assert not remote.ssh_config().kept


def test_pause_and_resume(service: FakeService, remote: RemoteService) -> None:
    assert remote.pause("demo", None)
    assert not remote.pause("demo", None)
    assert remote.pause("demo", "dev")
    assert service.paused == {("demo", None), ("demo", "dev")}
    assert remote.resume("demo", "dev")
    assert not remote.resume("demo", "dev")
    assert remote.resume("demo", None)
    assert service.paused == set()


def test_approve(service: FakeService, remote: RemoteService) -> None:
    service.awaiting = {"0123456789ab": "demo"}
    assert remote.approve("0123456789ab") == "demo"


def test_info(service: FakeService, remote: RemoteService) -> None:
    source = SourceInfo(path=Path("/etc/a b.yaml"), environment=None, problem="1:2: no", generation=4, since=3.5)
    service.the_info = ServiceInfo(
        version="1.2", pid=77, state=Path("/var/lib/banger"), controller=True, since=12.5, sources=(source,)
    )
    assert remote.info() == service.the_info


def test_events(service: FakeService, remote: RemoteService) -> None:
    service.happened = [fake.event(n, environment="ab"[n % 2], warning=n % 3 == 0) for n in range(1, 121)]
    assert list(remote.events(None, None, False)) == service.happened[-50:]
    assert list(remote.events("a", 100, False)) == [e for e in service.happened if e.id > 100 and e.environment == "a"]
    assert service.calls[-1] == ("events", "a", 100, False)


def test_errors_arrive_as_what_they_are(service: FakeService, remote: RemoteService) -> None:
    service.error = NotReadyError("not ready: vm dev", hint="banger logs dev", replay="banger wait dev")
    with pytest.raises(NotReadyError) as caught:
        remote.wait("demo", [], 1.0, Recorder())
    assert (caught.value.exit_code, caught.value.cause, caught.value.hint, caught.value.replay) == (
        4,
        "not ready: vm dev",
        "banger logs dev",
        "banger wait dev",
    )


def test_reachable(path: Path) -> None:
    assert not reachable(path)


def test_reachable_while_it_is_served(server: Server, path: Path) -> None:
    assert reachable(path)
    server.stop()
    assert not reachable(path)


def test_the_cache_and_its_pruning(service: FakeService, remote: RemoteService) -> None:
    policy = CachePolicy(limits=Limits(max_used=5), rules=(Rule(kind=EntryKind.IMAGE, newest=2, unused_for=60.0),))
    wanted = dataclasses.replace(fake.desired(), cache=policy)
    assert remote.cache(None) == service.the_cache and remote.cache(wanted) == service.the_cache
    service.the_plan = Plan(environment="demo", steps=(Step(fake.eviction()),))
    shown: list[Plan] = []
    options = ApplyOptions(operation="op-9")
    result = remote.prune_cache(wanted, options, Recorder(), lambda plan: not shown.append(plan))
    assert result.plan == service.the_plan and len(result.outcomes) == 1 and shown == [service.the_plan]
    assert service.calls[-1] == ("prune_cache", "demo", options)
    assert not remote.prune_cache(wanted, options, Recorder(), lambda plan: False).approved
    assert remote.clear_blobs(True) == service.the_cleared
    assert service.calls[-1] == ("clear_blobs", True)


def test_images(service: FakeService, remote: RemoteService) -> None:
    assert remote.images() == service.the_images
    assert remote.remove_image(fake.UNUSED.id) == 1 << 20
    assert remote.pin_image(fake.UNUSED.id, True) and remote.pin_image(fake.UNUSED.id, False)
    assert remote.lock_images(fake.desired()) == service.the_lock
    assert service.calls[-4:] == [
        ("remove_image", fake.UNUSED.id),
        ("pin_image", fake.UNUSED.id, True),
        ("pin_image", fake.UNUSED.id, False),
        ("lock_images", "demo"),
    ]
