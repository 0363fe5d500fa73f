"""Who gets which address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.addressing import allocate
from reconciler.model.vm import Network
from tests.fakes.host import vm

SMALL = Network(name="lab", cidr=IPv4Network("10.0.0.0/29"), mtu=1500, nameservers=())


def at(last: int) -> IPv4Address:
    return IPv4Address(f"10.0.0.{last}")


def test_written_then_held_then_lowest_free() -> None:
    vms = [vm("new", network="lab"), vm("held", network="lab"), vm("written", network="lab", address=at(2))]
    assert allocate(SMALL, vms, {"held": at(4)}) == ({"written": at(2), "held": at(4), "new": at(3)}, [])


def test_a_held_address_yields_to_a_written_one() -> None:
    vms = [vm("a", network="lab"), vm("b", network="lab", address=at(2))]
    assert allocate(SMALL, vms, {"a": at(2)}) == ({"b": at(2), "a": at(3)}, [])


def test_a_held_address_outside_of_the_network_is_given_up() -> None:
    assert allocate(SMALL, [vm("a", network="lab")], {"a": IPv4Address("10.9.0.2")}) == ({"a": at(2)}, [])


def test_a_held_address_that_the_host_needs_is_given_up() -> None:
    for reserved in (0, 1, 7):
        assert allocate(SMALL, [vm("a", network="lab")], {"a": at(reserved)}) == ({"a": at(2)}, [])


def test_an_address_that_somebody_still_has_is_not_handed_out() -> None:
    vms = [vm("moves", network="lab", address=at(6)), vm("new", network="lab")]
    assert allocate(SMALL, vms, {"moves": at(2), "gone": at(3)}) == ({"moves": at(6), "new": at(4)}, [])


def test_a_full_network_names_who_got_none() -> None:
    vms = [vm(f"v{n}", network="lab") for n in range(7)]
    given_, full = allocate(SMALL, vms, {})
    assert len(given_) == 5 and full == ["v5", "v6"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 7).map(at)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(2, 6).map(at)),
)
def test_no_two_get_one_address(
    names: list[str], held: dict[str, IPv4Address], written: dict[str, IPv4Address]
) -> None:
    chosen: dict[str, IPv4Address] = {}
    for name, address in written.items():
        if address not in chosen.values():
            chosen[name] = address
    vms = [vm(name, network="lab", address=chosen.get(name)) for name in names]
    result, full = allocate(SMALL, vms, held)
    assert len(set(result.values())) == len(result)
    assert set(result) | set(full) == set(names) and not set(result) & set(full)
    assert all(address in list(SMALL.cidr.hosts())[1:] for address in result.values())
    assert {name: result[name] for name in names if name in chosen} == {n: chosen[n] for n in names if n in chosen}
