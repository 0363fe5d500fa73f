"""Rules and published ports through the whole of banger: what the helper and the VMM are told, and when."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from reconciler.api.service import ApplyOptions, VmRef, VmVerb
from reconciler.model.vm import Egress, Protocol, Publication, RunState
from tests.fakes.host import Host, desired, free_port, network, vm

OPTIONS = ApplyOptions(wait=False)


def test_the_packet_filter_knows_everybody_on_the_network_before_they_start(host: Host) -> None:
    port = Publication(host_address="127.0.0.1", host_port=8080, protocol=Protocol.TCP, guest_port=80)
    lab = replace(network(), cidr6=IPv6Network("fd00:30:7::/64"), isolated=True, egress=(Egress(to="10.0.0.0/8"),))
    web = replace(vm("web", network="lab"), ports=(port,))
    wanted = desired(vm("off", network="lab", state=RunState.STOPPED), web, networks=[lab])
    assert not host.apply(wanted).failed
    (rules,) = host.helper.rules.values()
    assert rules.fields == {
        "cidr": "172.30.7.0/24",
        "cidr6": "fd00:30:7::/64",
        "nat": True,
        "isolated": True,
        "dns": True,
        "restricted": True,
        "egress": [("10.0.0.0/8", "any", 0, 0)],
        "vms": [("off", "172.30.7.2"), ("web", "172.30.7.3")],
        "ports": [("127.0.0.1", 8080, "tcp", "web", 80)],
    }
    assert host.helper.calls.index("ensure rules lab") < host.helper.calls.index("ensure tap web")
    (bridge,) = host.helper.bridges.values()
    assert str(bridge.cidr6) == "fd00:30:7::/64"
    assert host.plan(wanted).empty


def test_a_flushed_packet_filter_is_drift_and_restarts_nobody(host: Host) -> None:
    wanted = desired(vm("dev", network="lab"), networks=[network()])
    host.apply(wanted)
    before = dict(host.helper.rules)
    host.helper.flush_rules()
    (status,) = host.service.networks("env")
    assert not status.ready and "the packet filter has no rules for it" in status.message
    assert [step.id for step in host.apply(wanted).plan.steps] == ["filter network/lab"]
    assert host.helper.rules == before and len(host.backend.starts) == 1
    (status,) = host.service.networks("env")
    assert status.ready and status.details["rules"] == "intact"
    assert status.details["vms"] == [{"name": "dev", "address": "172.30.7.2", "address6": None}]


def test_a_bridge_that_goes_while_the_host_is_read_is_made_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is read first, links or rules: rules alone could not be mended without their bridge."""
    wanted = desired(vm("dev", network="lab"), networks=[network()])
    host.apply(wanted)

    def then_it_goes(read: Callable[..., object]) -> Callable[..., object]:
        def reading(**named: object) -> object:
            found = read(**named)
            host.helper.bridges.clear()
            host.helper.flush_rules()
            return found

        return reading

    monkeypatch.setattr(host.helper, "show_rules", then_it_goes(host.helper.show_rules))
    links = host.helper.read_links
    monkeypatch.setattr(host.helper, "read_links", lambda install: then_it_goes(links)(install=install))
    assert {"ensure network/lab", "filter network/lab"} <= {step.id for step in host.plan(wanted).steps}


def test_an_unreadable_packet_filter_holds_what_needs_it_and_nothing_else(host: Host) -> None:
    """I4."""
    wanted = desired(vm("dev", network="lab"), vm("alone"), networks=[network()])
    host.apply(wanted)
    host.helper.unreadable = True
    calls = list(host.helper.calls)
    held = host.apply(desired(vm("alone"))).plan.held
    assert {h.object for h in held} == {"network/lab", "vm/dev"} and "nft: command not found" in held[0].reason
    assert host.helper.calls == calls and host.running() == {"env/dev", "env/alone"}


def test_ports_of_a_user_mode_network_change_while_the_vm_runs(host: Host) -> None:
    def published() -> dict[int, int]:
        (boot,) = host.backend.boots.values()
        assert boot.nic is not None
        return {f.host_port: f.guest_port for f in boot.nic.forwards if f.guest_port != 22}

    first, second = free_port(), free_port()
    port = Publication(host_address="127.0.0.1", host_port=first, protocol=Protocol.TCP, guest_port=80)
    host.apply(desired(replace(vm("dev"), ports=(port,))))
    assert published() == {first: 80}
    wanted = desired(replace(vm("dev"), ports=(replace(port, host_port=second), replace(port, guest_port=81))))
    assert not host.apply(wanted).failed
    assert published() == {first: 81, second: 80} and len(host.backend.starts) == 1
    assert host.plan(wanted).empty
    host.service.vm(VmVerb.RESTART, VmRef(environment="env", name="dev"), OPTIONS, host.reporter)
    assert published() == {first: 81, second: 80} and host.plan(wanted).empty
    assert not host.apply(desired(vm("dev"))).failed
    assert published() == {}


def test_a_published_port_that_is_taken_is_named(host: Host) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        port = Publication(host_address="", host_port=number, protocol=Protocol.TCP, guest_port=80)
        wanted = desired(replace(vm("dev"), ports=(port,)))
        (failed,) = host.apply(wanted).failed
        assert (
            failed.error is not None and f"tcp port {number} of 0.0.0.0, which vm dev publishes" in failed.error.cause
        )
        assert f"sport = :{number}" in str(failed.error.hint)
    assert not host.apply(wanted).failed
