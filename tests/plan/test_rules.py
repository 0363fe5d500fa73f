"""What stands in the rules that are planned: who, at which address, and which port of the host leads to whom."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model.actions import EnsureRules
from reconciler.model.rules import NetworkRules
from tests.plan.cases import plan_of

LAB = {"lab": "172.30.7.0/24"}


def rules_of(was: dict[str, Any], wanted: dict[str, Any], **more: Any) -> NetworkRules:
    """Those of the network `lab` when the VMs of `was` are to become `wanted`."""
    before = {"networks": LAB, "vms": was} if was else {}
    made = plan_of({"name": "x", "was": before, "desired": {"networks": LAB, "vms": wanted}, **more})
    (action,) = [s.action for s in made.steps if isinstance(s.action, EnsureRules) and s.action.name == "lab"]
    return action.rules


def shown(rules: NetworkRules) -> tuple[dict[str, str], dict[int, str]]:
    return {m.vm: str(m.address) for m in rules.vms}, {p.host_port: p.vm for p in rules.ports}


def test_everybody_on_the_network_running_or_not_and_nobody_else() -> None:
    vms = {"a": {"network": "lab", "ports": ["8080:80"]}, "b": {"network": "lab", "state": "stopped"}, "c": {}}
    assert shown(rules_of({}, vms)) == ({"a": "172.30.7.2", "b": "172.30.7.3"}, {8080: "a"})


def test_a_vm_that_goes_is_in_no_rules() -> None:
    was = {"a": {"network": "lab", "ports": ["8080:80"]}}
    assert shown(rules_of(was, {"b": {"network": "lab"}})) == ({"b": "172.30.7.3"}, {})


def test_what_is_held_back_keeps_its_address_and_its_ports_before_anybody_else() -> None:
    was = {"z": {"network": "lab", "protect": True, "ports": ["8080:80"]}}
    wanted = {"b": {"network": "lab", "ports": ["8080:81", "8081:81"]}}
    assert shown(rules_of(was, wanted)) == ({"z": "172.30.7.2", "b": "172.30.7.3"}, {8080: "z", 8081: "b"})


def test_what_waits_for_its_next_start_is_where_it_runs_but_publishes_at_once() -> None:
    was = {"a": {"network": "lab", "onChange": "next-start"}}
    wanted = {"a": {"network": "lab", "onChange": "next-start", "address": "172.30.7.9", "ports": ["8080:80"]}}
    assert shown(rules_of(was, wanted)) == ({"a": "172.30.7.2"}, {8080: "a"})


def test_what_moves_is_where_it_goes() -> None:
    was = {"a": {"network": "lab"}}
    wanted = {"a": {"network": "lab", "address": "172.30.7.9"}}
    assert shown(rules_of(was, wanted)) == ({"a": "172.30.7.9"}, {})


def test_what_cannot_be_made_yet_is_in_no_rules() -> None:
    drift = [{"unknown": "images"}]
    assert shown(rules_of({"a": {"network": "lab"}}, {"b": {"network": "lab"}}, drift=drift)) == ({}, {})


@pytest.mark.parametrize("other", ["127.0.0.1:8080:80", "8080:81"])
def test_a_port_clashes_with_the_same_on_all_addresses(other: str) -> None:
    was = {"z": {"network": "lab", "protect": True, "ports": ["8080:80"]}}
    assert shown(rules_of(was, {"b": {"network": "lab", "ports": [other]}}))[1] == {8080: "z"}


def test_one_port_on_two_addresses_is_two() -> None:
    was = {"z": {"network": "lab", "protect": True, "ports": ["127.0.0.1:8080:80"]}}
    rules = rules_of(was, {"b": {"network": "lab", "ports": ["192.168.1.5:8080:80"]}})
    assert {(p.host_address, p.vm) for p in rules.ports} == {("127.0.0.1", "z"), ("192.168.1.5", "b")}


def test_a_digest_stands_for_every_field() -> None:
    vms = {"a": {"network": "lab", "ports": ["8080:80"]}}
    plain = rules_of({}, vms)
    others = [rules_of({}, {"a": {"network": "lab"}}), rules_of({}, {**vms, "b": {"network": "lab"}})]
    for change in (
        {"nat": False},
        {"isolated": True},
        {"egress": []},
        {"egress": ["10.0.0.0/8"]},
        {"cidr6": "fd00::/64"},
    ):
        case = {"name": "x", "desired": {"networks": {"lab": {"cidr": LAB["lab"], **change}}, "vms": vms}}
        others += [s.action.rules for s in plan_of(case).steps if isinstance(s.action, EnsureRules)]
    digests = {rules.digest for rules in (plain, *others)}
    assert len(digests) == len(others) + 1 == 8
    assert all(len(digest) == 16 and set(digest) <= set("0123456789abcdef") for digest in digests)
