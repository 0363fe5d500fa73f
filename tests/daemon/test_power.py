"""What a person decides about one VM is remembered, and what an apply waits for before it starts another."""

from __future__ import annotations

import dataclasses

import pytest

from reconciler.api.service import ApplyOptions, VmRef, VmVerb
from reconciler.daemon.power import plan_verb
from reconciler.lib.errors import BangerError
from reconciler.model.inside import GuestFile
from reconciler.model.observed import ObservedState, ObservedVm
from reconciler.model.outcome import Result
from reconciler.model.vm import Dependency, DependsOn, Vm
from reconciler.store.inventory import VmRow
from tests.fakes.host import Host, desired, image, vm

DEV = VmRef(environment="env", name="dev")


def verb(host: Host, which: VmVerb, ref: VmRef = DEV) -> None:
    host.service.vm(which, ref, ApplyOptions(wait=False), host.reporter)


def row(host: Host, name: str = "dev") -> VmRow:
    found = host.service._engine.inventory().vm("env", name)
    assert found is not None
    return found


@pytest.mark.parametrize("which", [VmVerb.STOP, VmVerb.KILL])
def test_what_is_stopped_by_hand_is_to_stay_so_until_it_is_started(host: Host, which: VmVerb) -> None:
    host.apply(desired(vm("dev")))
    assert row(host).halted is None and row(host).started_at is not None
    verb(host, which)
    assert (row(host).halted, row(host).started_at) == ("stopped by hand", None)
    verb(host, VmVerb.START)
    assert row(host).halted is None and row(host).started_at is not None


def test_a_restart_is_no_stop(host: Host) -> None:
    host.apply(desired(vm("dev")))
    verb(host, VmVerb.RESTART)
    assert row(host).halted is None and host.running() == {"env/dev"}


def test_a_restart_that_gets_no_further_than_the_stop_is_no_stop_either(host: Host) -> None:
    host.apply(desired(vm("dev")))
    host.paths.image(image().id).squashfs.unlink()
    with pytest.raises(BangerError, match="no longer in the cache"):
        verb(host, VmVerb.RESTART)
    assert row(host).halted is None and host.running() == set()


def test_an_apply_starts_what_was_stopped_by_hand(host: Host) -> None:
    host.apply(desired(vm("dev")))
    verb(host, VmVerb.STOP)
    host.apply(desired(vm("dev")))
    assert row(host).halted is None and host.running() == {"env/dev"}


def test_a_vm_that_could_not_be_started_never_was(host: Host) -> None:
    """So that `restart: never` does not take it for one that has ended."""
    host.backend.broken.add("env/dev")
    result = host.apply(desired(vm("dev")))
    assert [o.result for o in result.outcomes if o.step == "start vm/dev"] == [Result.FAILED]
    assert row(host).started_at is None


def test_each_start_is_marked_in_the_console_log(host: Host) -> None:
    host.apply(desired(vm("dev")))
    verb(host, VmVerb.RESTART)
    text = host.paths.vm("env", "dev").console_log.read_text()
    assert text.count("-- start at 1970-01-12 13:46:41 UTC --") == 2


def on(ready: bool) -> tuple[Vm, Vm]:
    condition = DependsOn.READY if ready else DependsOn.STARTED
    return vm("db"), vm("web", depends_on=(Dependency(vm="db", on=condition),))


def test_an_apply_waits_for_what_a_vm_depends_on(host: Host) -> None:
    host.apply(desired(*on(ready=True)))
    assert host.backend.starts == ["env/db", "env/web"]
    order = host.reporter.order
    assert order.index("-await vm/db") < order.index("+start vm/web")
    assert row(host, "db").ready_at is not None
    assert host.plan(desired(*on(ready=True))).empty


def test_one_that_is_never_ready_keeps_its_dependents_from_starting(host: Host) -> None:
    host.silent.add("env/db")
    result = host.apply(desired(*on(ready=True), vm("other")))
    ended = {o.step: o for o in result.outcomes}
    assert ended["await vm/db"].result is Result.FAILED and ended["await vm/db"].attempts == 1
    assert ended["start vm/web"].result is Result.SKIPPED and ended["start vm/web"].blocked_by == "await vm/db"
    assert host.running() == {"env/db", "env/other"}


def test_started_does_not_wait_for_an_answer(host: Host) -> None:
    host.silent.add("env/db")
    host.apply(desired(*on(ready=False)))
    assert host.backend.starts == ["env/db", "env/web"]


def test_a_person_may_start_a_vm_without_the_others(host: Host) -> None:
    host.apply(desired(*on(ready=True)))
    for name in ("db", "web"):
        verb(host, VmVerb.STOP, VmRef(environment="env", name=name))
    verb(host, VmVerb.START, VmRef(environment="env", name="web"))
    assert host.running() == {"env/web"}


def test_a_verb_on_a_vm_that_is_not_there_is_refused(host: Host) -> None:
    host.apply(desired(vm("dev")))
    with pytest.raises(BangerError, match="there is no vm env/nobody"):
        verb(host, VmVerb.STOP, VmRef(environment="env", name="nobody"))


def test_a_guest_that_is_started_by_hand_is_seen_to_have_its_files() -> None:
    spec = dataclasses.replace(vm("dev"), network="user", files=(GuestFile(guest="/etc/motd", content="hello"),))
    have = ObservedVm(name="dev", id="1", spec=spec, mac="02:00:00:00:00:01", disk=True, pid=7)
    observed = ObservedState(install="i", environment="env", vms={"dev": have})
    steps = [step.id for step in plan_verb(VmVerb.RESTART, DEV, observed).steps]
    assert [step for step in steps if step.endswith("vm/dev")] == ["stop vm/dev", "start vm/dev", "configure vm/dev"]
