"""What an edit costs, and what a plan says of itself."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

import pytest

from reconciler.model import actions as a
from reconciler.model.artifacts import GUEST_TOOLS
from reconciler.model.changes import (
    VM_FIELDS,
    Change,
    ChangeClass,
    boot_facts,
    compare,
    creation_facts,
    refusals,
    spec_key,
)
from reconciler.model.ids import identity, mac_address
from reconciler.model.outcome import Result
from reconciler.model.plan import Held, Plan, Step
from reconciler.model.retention import EntryKind, Eviction
from reconciler.model.rules import build_rules
from reconciler.model.status import Condition, ConditionType
from reconciler.model.vm import Egress, Protocol, Publication, Volume, Workspace
from tests.fakes.host import KERNEL, image, network, vm

SCHEMA = Path(__file__).parents[2] / "schemas" / "banger.schema.json"


def test_the_schema_publishes_the_change_classes() -> None:
    published = json.loads(SCHEMA.read_text())["$defs"]["vm"]["properties"]
    for field, change_class in VM_FIELDS.items():
        assert published[field]["x-change"] == change_class.value, field


def test_every_field_of_a_vm_has_a_class_or_comes_from_one_that_has() -> None:
    derived = {"name", "image_id", "image_digest", "kernel", "kernel_id"}
    assert {spec_key(field.name) for field in dataclasses.fields(vm("dev"))} - derived == set(VM_FIELDS)


def test_a_field_is_named_as_in_the_file_if_it_stands_there() -> None:
    assert [spec_key(f) for f in ("cpus", "depends_on", "on_change", "image_id")] == [
        "cpus",
        "dependsOn",
        "onChange",
        "image_id",
    ]


@pytest.mark.parametrize("field", [f for f, c in VM_FIELDS.items() if c is ChangeClass.NONE])
def test_what_costs_nothing_is_no_fact(field: str) -> None:
    from reconciler.model.vm import Dependency, DependsOn, OnChange, Ready, RestartPolicy

    old = vm("dev", network="lab")
    value = {
        "ready": Ready(port=80, timeout=1.0),
        "protect": True,
        "restart": RestartPolicy.NEVER,
        "depends_on": (Dependency(vm="db", on=DependsOn.READY),),
        "on_change": OnChange.NEXT_START,
        "ttl": 60.0,
        "user": "me",
    }
    (name,) = [key for key in value if spec_key(key) == field]
    new = dataclasses.replace(old, **{name: value[name]})
    assert new != old
    assert boot_facts(old, network(), None) == boot_facts(new, network(), None)
    assert creation_facts(old) == creation_facts(new)


@pytest.mark.parametrize("field", [f for f, c in VM_FIELDS.items() if c is ChangeClass.RESTART])
def test_what_costs_a_restart_is_a_fact_of_the_start(field: str) -> None:
    from ipaddress import IPv4Address

    from reconciler.model.vm import Backend

    old = vm("dev", network="lab")
    value = {
        "cpus": 2,
        "memory": 256 << 20,
        "disk": 32 << 20,
        "network": "dmz",
        "address": IPv4Address("172.30.7.9"),
        "backend": Backend.QEMU,
        "volumes": (Volume(name="data", size=16 << 20, mount="/data"),),
    }[field]
    new = dataclasses.replace(old, **{field: value})
    before, after = boot_facts(old, network(), old.address), boot_facts(new, network(), new.address)
    assert [change.field.partition(".")[0] for change in compare(before, after, ChangeClass.RESTART)] == [field]
    assert creation_facts(old) == creation_facts(new)


def test_a_label_is_no_change_and_an_identity_is() -> None:
    one, two = image("base", "git"), image("tools", "git")
    assert compare(creation_facts(vm("d", of=one)), creation_facts(vm("d", of=two)), ChangeClass.RECREATE) == []
    (change,) = compare(creation_facts(vm("d", of=one)), creation_facts(vm("d", of=image())), ChangeClass.RECREATE)
    assert str(change) == f"image: base ({one.id}) → base ({image().id}) (recreate)"


def test_a_mount_path_that_looks_like_a_label_counts_whole() -> None:
    old, new = {"volumes.a": "1GiB at /srv (a)"}, {"volumes.a": "2GiB at /srv (a)"}
    assert len(compare(old, new, ChangeClass.RESTART)) == 1


def test_facts_that_appear_or_vanish_are_changes() -> None:
    (gone,) = compare({"mtu": "1500"}, {}, ChangeClass.RESTART)
    assert gone == Change("mtu", "1500", "", ChangeClass.RESTART) and str(gone) == "mtu: 1500 → unset (restart)"
    assert compare({}, {"mtu": ""}, ChangeClass.RESTART) == []


def test_what_a_file_holds_decides_about_shrinking() -> None:
    old, new = vm("dev", volumes=["data"], disk=32 << 20), vm("dev", volumes=["data"], disk=16 << 20)
    assert [c.field for c in refusals(old, new, {})] == ["disk"]
    assert [c.field for c in refusals(old, old, {"data": 17 << 20})] == ["volumes.data.size"]
    assert refusals(new, new, {"data": 8 << 20, "other": 1 << 40}) == []
    # One that was to grow with the next start has not grown yet.
    assert refusals(old, new, {}, {"disk": "16MiB"}) == []
    assert [c.old for c in refusals(new, dataclasses.replace(new, disk=8 << 20), {}, {"disk": "12MiB"})] == ["12MiB"]
    # Another image needs another disk, so nothing shrinks.
    assert refusals(old, dataclasses.replace(new, image_id="0" * 16), {}) == []


def test_identity_changes_with_its_inputs_only() -> None:
    assert identity("x", {"a": 1, "b": 2}) == identity("x", {"b": 2, "a": 1})
    assert len({identity("x", 1), identity("y", 1), identity("x", 2), identity("x", "1")}) == 4
    assert image("a").id == image("b").id != image("a", "git").id
    assert KERNEL.id == dataclasses.replace(KERNEL, name="other").id


def test_a_mac_is_local_unicast_and_stable() -> None:
    mac = mac_address("install", "env", "dev")
    assert mac == mac_address("install", "env", "dev") != mac_address("install", "env", "web")
    assert int(mac[:2], 16) & 0b11 == 0b10 and len(mac.split(":")) == 6


def plan_of(*actions: a.Action, held: tuple[Held, ...] = ()) -> Plan:
    return Plan(environment="env", steps=tuple(Step(action) for action in actions), held=held)


STOP = a.StopVm(name="dev", reason="cpus", restart=True)
START = a.StartVm(name="dev", reason="cpus", vm=vm("dev"), network=None, address=None)


def test_a_summary_counts_a_restart_once() -> None:
    assert plan_of(STOP, START).summary() == "1 to restart"
    assert plan_of(START).summary() == "1 to start"
    held = Held(object="vm/x", reason="r", release="l")
    assert plan_of(START, held=(held,)).summary() == "1 to start, 1 to hold back"
    assert plan_of().summary() == "nothing to do" and plan_of().empty and not plan_of(held=(held,)).empty


def test_a_fingerprint_changes_with_reason_edge_and_hold() -> None:
    other = dataclasses.replace(STOP, reason="memory")
    edged = Plan(environment="env", steps=(Step(STOP), Step(START, (STOP.id,))))
    plans = [plan_of(STOP, START), plan_of(START, STOP), plan_of(other, START), edged, plan_of(STOP)]
    plans.append(plan_of(dataclasses.replace(STOP, halt="stopped by hand"), START))
    plans.append(plan_of(STOP, held=(Held(object="vm/x", reason="r", release="l"),)))
    assert len({plan.fingerprint for plan in plans}) == len(plans)


def test_disruptive_steps_are_those_that_stop_or_take_away() -> None:
    trash = a.TrashVm(name="dev", reason="gone")
    update = a.UpdateVm(name="dev", reason="edit", vm=vm("dev"), address=None)
    assert [step.action for step in plan_of(update, STOP, trash, START).disruptive] == [STOP, trash]


RULES = build_rules(
    dataclasses.replace(network(), cidr6=IPv6Network("fd00:30:7::/64"), egress=(Egress(to="example.org"),)),
    {"dev": IPv4Address("172.30.7.2")},
    {"dev": (Publication(host_address="", host_port=8080, protocol=Protocol.TCP, guest_port=80),)},
)

SAMPLES: dict[type, a.Action] = {
    type(action): action
    for action in (
        a.FetchKernel(name="debian", reason="r", kernel=KERNEL),
        a.FetchTools(name="guest-tools", reason="r", tools=GUEST_TOOLS),
        a.BuildImage(name="base", reason="r", image=image("base", "git")),
        a.EnsureBridge(name="lab", reason="r", network=network()),
        a.EnsureRules(name="lab", reason="r", network=network(), rules=RULES),
        a.DeleteBridge(name="lab", reason="r"),
        a.EnsureTap(name="dev", reason="r", network="lab", mtu=1500),
        a.DeleteTap(name="dev", reason="r"),
        a.CreateVm(name="dev", reason="r", vm=vm("dev"), address=None),
        a.UpdateVm(name="dev", reason="r", vm=vm("dev"), address=None),
        START,
        STOP,
        a.PublishPorts(name="dev", reason="r", ports=()),
        a.ConfigureGuest(name="dev", reason="r", vm=vm("dev"), timeout=90.0),
        a.ProvisionVm(name="dev", reason="r", vm=vm("dev"), timeout=90.0),
        a.AwaitReady(name="dev", reason="r", timeout=90.0),
        a.ShipWorkspace(name="dev", reason="r", workspace=Workspace(host="/src", guest="/root/repo")),
        a.ApproveRemoval(name="env", reason="r", vms=("a", "b"), digest="0" * 12, state="1" * 12),
        a.TrashVm(name="dev", reason="r", recreate=True),
        a.RestoreVm(name="dev", reason="r", entry="env.dev.1"),
        a.TrashVolumes(name="dev", reason="r"),
        a.KillStray(name="0123", reason="r", pid=7),
        a.SweepStaging(name="/cache/x", reason="r"),
        a.EvictEntries(
            name="cache",
            reason="r",
            entries=(
                Eviction(
                    kind=EntryKind.TRASH, name="env.dev.1", rule="cache.rules[0]", reason="old", frees=4096, used_at=1.5
                ),
            ),
        ),
        a.ForgetEnvironment(name="env", reason="r"),
    )
}


@pytest.mark.parametrize("kind", a.Action.__args__)
def test_every_action_describes_itself_and_survives_json(kind: type) -> None:
    action = SAMPLES[kind]
    assert a.action_from_json(json.loads(json.dumps(action.to_json()))) == action
    sentence = action.describe()
    assert action.name in sentence and not sentence.endswith(".") and sentence[0].islower()
    assert action.id == f"{action.verb} {action.object}"


def test_two_actions_of_one_object_differ_in_their_ids() -> None:
    verbs = [(kind.noun, kind.verb) for kind in a.Action.__args__]
    assert len(verbs) == len(set(verbs))


@pytest.mark.parametrize("data", [{}, {"action": "Nonsense"}, {"action": None}, {"action": "StopVm", "name": "dev"}])
def test_what_is_no_action_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown action|missing"):
        a.action_from_json(data)


def test_only_done_is_well() -> None:
    assert [result for result in Result if result.ok] == [Result.DONE]


def test_a_condition_says_unknown() -> None:
    condition = Condition(type=ConditionType.READY, status=None, reason="Unknown")
    assert condition.to_json()["status"] == "Unknown"
