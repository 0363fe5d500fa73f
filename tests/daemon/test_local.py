"""The service on a host with a fake boundary: what each operation leaves, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.api.service import ApplyOptions, Source, VmRef, VmVerb
from reconciler.daemon.engine import Engine
from reconciler.lib.errors import BangerError, NotReadyError, UsageError
from reconciler.lib.units import MIB
from reconciler.model.outcome import Result
from reconciler.model.status import State
from reconciler.model.vm import Ready, RunState
from tests.fakes.host import Host, desired, image, network, vm

OPTIONS = ApplyOptions(wait=False)


def test_reading_creates_nothing(host: Host) -> None:
    host.lose_tools()
    service = host.service
    assert service.environments() == [] and service.vms(None) == [] and service.status(None) == []
    assert service.trash() == []
    assert host.plan(desired(vm("dev"))).steps
    assert not host.paths.state.exists() and not host.paths.cache.exists()


def test_an_apply_makes_everything_and_a_second_one_writes_nothing(host: Host) -> None:
    """I5."""
    wanted = desired(vm("dev", network="lab", volumes=["data"]), vm("web"), networks=[network()])
    result = host.apply(wanted)
    assert not result.failed
    assert host.running() == {"env/dev", "env/web"}
    assert [(path.parent.name, path.name) for path in sorted(host.paths.volumes.rglob("*.ext4"))] == [
        ("dev", "data.ext4")
    ]
    host.restart()
    before = host.files()
    again = host.apply(wanted)
    assert again.plan.empty and again.outcomes == ()
    host.restart()
    assert host.files() == before


def test_a_refused_approval_changes_nothing(host: Host) -> None:
    source = Source(path=Path("/banger.yaml"), digest="0" * 64)
    result = host.service.apply(desired(vm("dev")), source, OPTIONS, host.reporter, lambda plan: False)
    assert not result.approved
    assert host.service.environments() == [] and not host.backend.table


def test_an_expected_fingerprint_must_be_that_of_the_plan_now(host: Host) -> None:
    wanted = desired(vm("dev"))
    saved = host.plan(wanted).fingerprint
    assert not host.apply(wanted, expect=saved).failed
    with pytest.raises(BangerError, match="no longer fits"):
        host.apply(wanted, expect=saved)


def test_a_failing_image_leaves_the_others_running(host: Host) -> None:
    """I7."""
    host.broken_images = {"bad"}
    bad = image("bad", "nonsense")
    result = host.apply(desired(vm("dev"), vm("web", of=bad), images=[image(), bad]))
    assert {o.step: o.result for o in result.failed} == {
        "build image/bad": Result.FAILED,
        "create vm/web": Result.SKIPPED,
        "start vm/web": Result.SKIPPED,
    }
    assert host.running() == {"env/dev"}
    assert {s.name: s.state for s in host.service.vms("env")} == {"dev": State.READY}
    host.broken_images = set()
    assert not host.apply(desired(vm("dev"), vm("web", of=bad), images=[image(), bad])).failed
    assert host.running() == {"env/dev", "env/web"}


def test_a_failed_start_is_shown_and_retried_by_the_next_apply(host: Host) -> None:
    host.backend.broken = {"env/dev"}
    assert [o.step for o in host.apply(desired(vm("dev"))).failed] == ["start vm/dev"]
    (status,) = [s for s in host.service.status("env") if s.name == "dev"]
    assert status.state is State.FAILED and status.message == "VM env/dev does not start"
    host.backend.broken = set()
    assert not host.apply(desired(vm("dev"))).failed
    assert host.running() == {"env/dev"}


def test_delete_leaves_only_the_trash(host: Host) -> None:
    host.apply(desired(vm("dev", network="lab", volumes=["data"]), networks=[network()]))
    result = host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)
    assert not result.failed
    assert not host.backend.table and not host.helper.bridges and not host.helper.taps
    assert host.service.environments() == [] and host.service.vms(None) == []
    assert not list(host.paths.vms.glob("[!.]*")) and not list(host.paths.volumes.glob("[!.]*"))
    (entry,) = host.service.trash()
    assert (entry.environment, entry.name) == ("env", "dev") and entry.size > 0
    with pytest.raises(UsageError, match="there is no environment env"):
        host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)


def test_delete_is_refused_as_a_whole_while_one_vm_is_protected(host: Host) -> None:
    host.apply(desired(vm("dev", protect=True), vm("web")))
    with pytest.raises(BangerError, match="protected"):
        host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)
    assert host.running() == {"env/dev", "env/web"}


def test_protection_survives_the_removal_of_its_block(host: Host) -> None:
    """I10."""
    host.apply(desired(vm("dev", protect=True, network="lab"), networks=[network()]))
    for _ in range(2):
        host.restart()
        result = host.apply(desired())
        assert {h.object for h in result.plan.held} == {"vm/dev", "network/lab"}
    assert host.running() == {"env/dev"} and host.helper.bridges
    host.apply(desired(vm("dev", network="lab"), networks=[network()]))
    host.apply(desired())
    assert not host.running() and not host.helper.bridges


def test_a_removed_vm_comes_back_from_the_trash_with_its_volumes(host: Host) -> None:
    """I12."""
    host.apply(desired(vm("dev", volumes=["data"])))
    overlay = host.paths.vm("env", "dev").overlay
    overlay.write_bytes(overlay.read_bytes() + b"")
    with overlay.open("r+b") as file:
        file.seek(8 * MIB)
        file.write(b"precious")
    old = host.service.vms("env")[0].details["id"]
    host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)
    assert not host.paths.volume("env", "dev", "data").exists()
    assert host.service.restore("dev", None, None, OPTIONS, host.reporter) == VmRef(environment="env", name="dev")
    with overlay.open("rb") as file:
        file.seek(8 * MIB)
        assert file.read(8) == b"precious"
    assert host.paths.volume("env", "dev", "data").exists()
    assert host.service.vms("env")[0].details["id"] == old
    assert host.running() == {"env/dev"} and host.service.trash() == []
    assert host.apply(desired(vm("dev", volumes=["data"]))).plan.empty


def test_a_vm_is_not_restored_over_one_that_exists(host: Host) -> None:
    host.apply(desired(vm("dev")))
    host.apply(desired())
    host.apply(desired(vm("dev")))
    with pytest.raises(UsageError, match="a vm env/dev exists"):
        host.service.restore("dev", None, None, OPTIONS, host.reporter)
    host.apply(desired())
    newest, oldest = host.service.trash()
    host.service.restore("dev", "env", oldest.entry, OPTIONS, host.reporter)
    assert [entry.entry for entry in host.service.trash()] == [newest.entry]


def test_a_restored_vm_gets_another_address_if_its_own_was_given_away(host: Host) -> None:
    nets = [network()]
    host.apply(desired(vm("a", network="lab"), networks=nets))
    host.apply(desired(networks=nets))
    host.apply(desired(vm("b", network="lab"), networks=nets))
    host.service.restore("a", None, None, OPTIONS, host.reporter)
    addresses = {status.name: status.address for status in host.service.vms("env")}
    assert addresses == {"a": "172.30.7.3", "b": "172.30.7.2"}


def test_a_written_address_that_is_taken_keeps_a_vm_in_the_trash(host: Host) -> None:
    from ipaddress import IPv4Address

    nets, mine = [network()], IPv4Address("172.30.7.2")
    host.apply(desired(vm("a", network="lab", address=mine), networks=nets))
    host.apply(desired(vm("b", network="lab", address=mine), networks=nets))
    with pytest.raises(UsageError, match="belongs to vm b now"):
        host.service.restore("a", None, None, OPTIONS, host.reporter)
    assert [entry.name for entry in host.service.trash()] == ["a"]
    assert [status.name for status in host.service.vms("env")] == ["b"]


def test_a_stopped_vm_comes_back_though_its_network_is_gone(host: Host) -> None:
    resting = vm("dev", network="lab", state=RunState.STOPPED)
    host.apply(desired(resting, networks=[network()]))
    host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)
    host.service.restore("dev", None, None, OPTIONS, host.reporter)
    assert host.paths.vm("env", "dev").overlay.exists()


def test_volumes_that_exist_again_keep_others_in_the_trash(host: Host) -> None:
    host.apply(desired(vm("dev", volumes=["data"])))
    host.service.delete("env", OPTIONS, host.reporter, lambda plan: True)
    host.apply(desired(vm("dev", volumes=["data"])))
    host.apply(desired())
    oldest = host.service.trash()[-1]
    with pytest.raises(BangerError, match="the trash entry holds others"):
        host.service.restore("dev", "env", oldest.entry, OPTIONS, host.reporter)
    assert host.service.vms("env") == [] and len(host.service.trash()) == 2


def test_a_recreated_vm_keeps_its_volumes_and_gets_a_new_disk(host: Host) -> None:
    host.apply(desired(vm("dev", volumes=["data"])))
    volume = host.paths.volume("env", "dev", "data")
    inode = volume.stat().st_ino
    other = image("base", "git")
    wanted = desired(vm("dev", of=other, volumes=["data"]), images=[other])
    assert [h.object for h in host.apply(wanted).plan.held] == ["vm/dev"]
    old = host.service.vms("env")[0].details["id"]
    assert not host.apply(wanted, allow_recreate=True).failed
    assert volume.stat().st_ino == inode
    assert host.service.vms("env")[0].details["id"] != old
    assert len(host.service.trash()) == 1 and host.running() == {"env/dev"}


def test_a_reboot_starts_what_should_run(host: Host) -> None:
    """I8."""
    wanted = desired(vm("dev", network="lab"), vm("off", state=RunState.STOPPED), networks=[network()])
    host.apply(wanted)
    host.backend.power_cut()
    host.helper.bridges.clear()
    host.helper.taps.clear()
    host.restart()
    assert not host.apply(wanted).failed
    assert host.running() == {"env/dev"}
    assert host.plan(wanted).empty


def test_an_unreadable_process_table_stops_everything_that_depends_on_it(host: Host) -> None:
    """I4."""
    wanted = desired(vm("dev"))
    host.apply(wanted)
    host.backend.unreadable = True
    assert [h.object for h in host.apply(desired()).plan.held] == ["vm/dev"]
    ref = VmRef(environment="env", name="dev")
    for attempt in (
        lambda: host.service.vm(VmVerb.START, ref, OPTIONS, host.reporter),
        lambda: host.service.vms(None),
        lambda: host.service.status("env"),
        lambda: host.service.wait("env", [], 1.0, host.reporter),
    ):
        with pytest.raises(BangerError, match="unknown"):
            attempt()
    host.backend.unreadable = False
    assert host.running() == {"env/dev"}


def test_apply_waits_until_vms_are_ready(host: Host) -> None:
    host.silent = {"env/dev"}
    host.clock.on_sleep = lambda seconds: host.silent.clear() if host.clock.time > 1_000_003 else None
    result = host.apply(desired(vm("dev")), wait=True)
    assert result.not_ready == ()
    assert [[s.state for s in told] for told in host.reporter.waited] == [[State.STARTING], [State.READY]]


def test_apply_names_what_is_not_ready_in_time(host: Host) -> None:
    host.silent = {"env/dev"}
    result = host.apply(desired(vm("dev"), vm("web")), wait=True)
    assert [(s.name, s.state) for s in result.not_ready] == [("dev", State.STARTING)]
    assert 1_000_006 <= host.clock.time < 1_000_007


def test_wait_says_who_is_late(host: Host) -> None:
    host.apply(desired(vm("dev"), vm("web"), vm("off", state=RunState.STOPPED)))
    host.service.wait("env", ["web"], None, host.reporter)
    host.silent = {"env/dev"}
    with pytest.raises(NotReadyError, match="vm dev: its ssh server does not answer"):
        host.service.wait("env", [], 2.0, host.reporter)
    with pytest.raises(UsageError, match="there is no vm wep"):
        host.service.wait("env", ["wep"], 2.0, host.reporter)
    with pytest.raises(UsageError, match="there is no environment other"):
        host.service.wait("other", [], 2.0, host.reporter)


def test_a_vm_that_is_not_running_is_not_waited_for(host: Host) -> None:
    host.apply(desired(vm("dev")))
    host.backend.power_cut()
    with pytest.raises(NotReadyError, match="vm dev: it is not running"):
        host.service.wait("env", ["dev"], 1000.0, host.reporter)
    assert host.clock.slept == []


def test_ready_belongs_to_one_boot(host: Host) -> None:
    host.apply(desired(vm("dev")), wait=True)
    assert Engine(host.paths, host.clock).inventory().vms()[0].ready_at is not None
    ref = VmRef(environment="env", name="dev")
    host.service.vm(VmVerb.RESTART, ref, OPTIONS, host.reporter)
    inventory = Engine(host.paths, host.clock).inventory()
    row = inventory.vms()[0]
    assert row.ready_at is None
    # A look at the boot before, by somebody who waited then, arrives late.
    inventory.mark_ready("env", "dev", row.id, 12.0, host.clock.now())
    assert inventory.vms()[0].ready_at is None
    inventory.mark_ready("env", "dev", row.id, row.started_at, host.clock.now())
    assert inventory.vms()[0].ready_at is not None


def test_a_port_to_wait_for_counts(host: Host) -> None:
    wanted = desired(vm("dev", ready=Ready(ssh=True, port=8080, timeout=5.0)))
    assert host.apply(wanted, wait=True).not_ready == ()
    (boot,) = host.backend.boots.values()
    assert boot.nic is not None and sorted(f.guest_port for f in boot.nic.forwards) == [22, 8080]


def test_resolve_finds_the_one_that_is_meant(host: Host) -> None:
    host.apply(desired(vm("dev"), vm("web")))
    host.apply(desired(vm("dev"), name="other"))
    resolve = host.service.resolve
    assert resolve("web", None) == VmRef(environment="env", name="web")
    assert resolve("other/dev", None) == resolve("dev", "other") == VmRef(environment="other", name="dev")
    with pytest.raises(UsageError, match="more than one environment") as both:
        resolve("dev", None)
    assert both.value.hint == "write env/dev or other/dev"
    with pytest.raises(UsageError, match="there is no vm wbe") as near:
        resolve("wbe", None)
    assert near.value.hint == "did you mean web?"
    with pytest.raises(UsageError, match="there is no vm web in environment other"):
        resolve("web", "other")


def test_verbs_of_one_vm(host: Host) -> None:
    host.apply(desired(vm("dev", network="lab"), networks=[network()]))
    ref = VmRef(environment="env", name="dev")
    host.service.vm(VmVerb.STOP, ref, OPTIONS, host.reporter)
    assert not host.running() and not host.helper.taps
    host.service.vm(VmVerb.STOP, ref, OPTIONS, host.reporter)
    host.service.vm(VmVerb.START, ref, OPTIONS, host.reporter)
    host.service.vm(VmVerb.START, ref, OPTIONS, host.reporter)
    assert host.backend.starts == ["env/dev"] * 2
    host.service.vm(VmVerb.RESTART, ref, OPTIONS, host.reporter)
    assert host.backend.starts == ["env/dev"] * 3 and host.backend.stops == ["env/dev"] * 2
    host.service.vm(VmVerb.KILL, ref, OPTIONS, host.reporter)
    assert host.backend.kills == ["env/dev"] and not host.running()


def test_an_edit_restarts_and_a_comment_does_not(host: Host) -> None:
    host.apply(desired(vm("dev")))
    port = host.service.vms("env")[0].details["forwards"]["22"]
    assert host.apply(replace(desired(vm("dev")))).plan.empty
    assert not host.apply(desired(vm("dev", cpus=2))).failed
    assert host.backend.starts == ["env/dev"] * 2
    assert host.service.vms("env")[0].details["forwards"]["22"] == port, "a port in somebody's notes stays right"


def test_a_controller_that_was_killed_at_any_step_is_made_good_by_the_next_apply(host: Host) -> None:
    """I3: the process ends after each number of steps; what it left is repaired, and nothing leaks."""
    nets, other = [network()], image("base", "git")
    before = desired(vm("a", network="lab", volumes=["data"]), vm("b"), networks=nets)
    after = desired(
        vm("a", of=other, network="lab", volumes=["data"]), vm("c", of=other), images=[other], networks=nets
    )
    for kill_after in range(1, 40):
        assert not host.apply(before, allow_recreate=True).failed
        assert host.plan(before).empty
        if not _apply_killed_after(host, after, kill_after):
            break
        host.restart()
        assert not host.apply(after, allow_recreate=True).failed
        assert host.plan(after).empty
        assert host.running() == {"env/a", "env/c"}
        assert len(host.helper.taps) == len(host.helper.bridges) == 1
        names = [entry.entry for entry in host.service.trash()]
        assert len(names) == len(set(names))
    else:
        pytest.fail("the plan has more steps than were tried")


class Killed(BaseException):
    """What a test ends a process with; nobody catches it."""


def _apply_killed_after(host: Host, wanted: object, steps: int) -> bool:
    """Whether the apply was still at work after so many steps."""
    from reconciler.execute import executor

    done = 0
    real = executor.perform

    def perform(action: object, tools: object, progress: object) -> None:
        nonlocal done
        if done == steps:
            raise Killed
        real(action, tools, progress)  # type: ignore[arg-type]  # passed on as they came
        done += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor.Executor.__init__, "__kwdefaults__", {"perform": perform})
        try:
            host.apply(wanted, allow_recreate=True, parallel=1)  # type: ignore[arg-type]  # a desired state
        except Killed:
            return True
    return False


def test_an_environment_that_is_not_there_has_no_objects(host: Host) -> None:
    assert host.service.status("env") == []
    host.apply(desired(vm("dev")))
    assert host.service.status("other") == []
    assert {status.name for status in host.service.status("env")} >= {"dev"}
