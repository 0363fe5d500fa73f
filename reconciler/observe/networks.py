"""Networks: our bridges and taps, by the labels that the helper put on them."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.lib.errors import BangerError
from reconciler.model.observed import Unknown
from reconciler.model.observed_links import ObservedBridge, ObservedTap

Bridges = Mapping[str, ObservedBridge] | Unknown
Taps = Mapping[str, ObservedTap] | Unknown


def observe_links(install: str, environment: str) -> tuple[Bridges, Taps]:
    """The environment's bridges by network and taps by VM; the netlink library is imported only here and now."""
    from reconciler.drivers.network.probe import read_links  # noqa: PLC0415  # 150 ms that most commands can save

    try:
        links = read_links(install)
    except (BangerError, OSError) as problem:
        unknown = Unknown(str(problem))
        return unknown, unknown
    return (
        {network: bridge for (owner, network), bridge in links.bridges.items() if owner == environment},
        {vm: tap for (owner, vm), tap in links.taps.items() if owner == environment},
    )
