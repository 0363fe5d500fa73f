"""Networks: our bridges and taps, by the labels that the helper put on them, and our rules in the packet filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.lib.errors import BangerError
from reconciler.model.observed import Unknown
from reconciler.model.observed_links import Filter, ObservedBridge, ObservedRules, ObservedTap

Bridges = Mapping[str, ObservedBridge] | Unknown
Taps = Mapping[str, ObservedTap] | Unknown
Rules = Mapping[str, ObservedRules] | Unknown
ReadFilter = Callable[[str], Filter]
"""Asks the helper for the rules of an installation; raises BangerError."""


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


def observe_rules(install: str, environment: str, read_filter: ReadFilter) -> Rules:
    """The environment's rules by network."""
    try:
        shown = read_filter(install)
    except BangerError as problem:
        # Whoever has no helper yet is told here, before anything is tried, what would give him one.
        return Unknown(f"{problem.cause} ({problem.hint})" if problem.hint else problem.cause)
    except OSError as problem:
        return Unknown(str(problem))
    return {network: rules for (owner, network), rules in shown.rules.items() if owner == environment}
