"""The codec: what goes out comes back, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings

from reconciler.model.codec import from_json, to_json
from reconciler.model.desired import DesiredState
from reconciler.model.observed_links import ObservedBridge
from reconciler.model.vm import Network, RunState, Vm
from tests.fakes.host import desired, network, vm
from tests.plan.strategies import desired_states


@settings(max_examples=100, deadline=None)
@given(desired_states())
def test_a_desired_state_survives_json(wanted: DesiredState) -> None:
    text = json.dumps(to_json(wanted))
    assert from_json(DesiredState, json.loads(text)) == wanted
    assert json.dumps(to_json(from_json(DesiredState, json.loads(text)))) == text


def test_the_order_of_a_file_survives_json() -> None:
    wanted = desired(vm("z"), vm("a"), networks=[network("n2"), network("n1", "10.1.0.0/24")])
    back = from_json(DesiredState, json.loads(json.dumps(to_json(wanted))))
    assert list(back.vms) == ["z", "a"] and list(back.networks) == ["n2", "n1"]


def changed(**fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = to_json(vm("dev", volumes=["data"]))
    return data | fields


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(surprise=1), "Vm: unknown field 'surprise'"),
        ({k: v for k, v in changed().items() if k != "cpus"}, "Vm: .*missing.*'cpus'"),
        (changed(cpus="2"), "Vm.cpus: expected int, got str"),
        (changed(cpus=True), "Vm.cpus: expected int, got bool"),
        (changed(cpus=2.0), "Vm.cpus: expected int, got float"),
        (changed(cpus=None), "Vm.cpus: expected int, got NoneType"),
        (changed(protect=0), "Vm.protect: expected bool, got int"),
        (changed(state="asleep"), "Vm.state: 'asleep' is not a valid RunState"),
        (changed(state=["running"]), "Vm.state: expected str, got list"),
        (changed(address="172.30.7"), "Vm.address: "),
        (changed(address=7), "Vm.address: expected str, got int"),
        (changed(volumes={}), "Vm.volumes: expected list, got dict"),
        (changed(volumes=[{"name": "data"}]), "Vm.volumes: .*missing"),
        (changed(ready={"port": "80"}), "Vm.ready.port: expected int, got str"),
        ([], "Vm: expected dict, got list"),
        (None, "Vm: expected dict, got NoneType"),
    ],
)
def test_anything_else_is_refused_with_its_place(data: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_json(Vm, data)


def test_defaults_may_be_absent() -> None:
    assert from_json(DesiredState, {"environment": "env"}) == DesiredState(environment="env")


def test_a_whole_number_is_a_duration_too() -> None:
    assert from_json(Vm, changed(ready={"timeout": 5})).ready.timeout == 5.0


def test_a_network_with_host_bits_is_refused() -> None:
    data = to_json(network()) | {"cidr": "172.30.7.1/24"}
    with pytest.raises(ValueError, match=r"Network.cidr: .*host bits"):
        from_json(Network, data)


def test_sets_are_sorted_and_enums_are_their_values() -> None:
    assert to_json({"b", "a"}) == ["a", "b"]
    assert to_json(RunState.STOPPED) == "stopped"
    assert to_json({IPv4Address("10.0.0.1"): (1, None)}) == {"10.0.0.1": [1, None]}
    bridge = ObservedBridge(name="bgb-1", mtu=1500, up=True, ports=("a", "b"))
    assert from_json(ObservedBridge, to_json(bridge)) == bridge


def test_what_has_no_json_form_is_a_mistake_of_ours() -> None:
    @dataclass
    class Odd:
        value: object

    with pytest.raises(TypeError, match="bytes has no JSON form"):
        to_json(Odd(b""))


@dataclass(frozen=True, kw_only=True)
class Circle:
    tag: ClassVar[str] = "circle"
    size: int


@dataclass(frozen=True, kw_only=True)
class Square:
    tag: ClassVar[str] = "square"
    size: int


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shape: Circle | Square


def test_members_of_a_union_are_told_apart_by_their_tag():
    drawing = Drawing(shape=Square(size=2))
    assert to_json(drawing) == {"shape": {"tag": "square", "size": 2}}
    assert from_json(Drawing, to_json(drawing)) == drawing


@pytest.mark.parametrize("shape", [{"size": 2}, {"tag": "line", "size": 2}, {"tag": "circle"}, None, "square"])
def test_a_member_of_no_known_tag_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        from_json(Drawing, {"shape": shape})
