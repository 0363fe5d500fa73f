"""Networks: bridges and taps, made and removed by the root helper."""

from __future__ import annotations

from reconciler.drivers.network import bridge, rules, tap
from reconciler.execute.tools import Tools
from reconciler.lib.progress import Progress
from reconciler.model.actions import DeleteBridge, DeleteTap, EnsureBridge, EnsureRules, EnsureTap


def ensure_bridge(action: EnsureBridge, tools: Tools, progress: Progress) -> None:
    bridge.ensure(
        tools.helper(),
        install=tools.inventory.install,
        environment=tools.environment,
        network=action.name,
        cidr=str(action.network.cidr),
        cidr6=str(action.network.cidr6 or ""),
        mtu=action.network.mtu,
        operation=tools.journal.operation,
    )


def ensure_rules(action: EnsureRules, tools: Tools, progress: Progress) -> None:
    rules.ensure(
        tools.helper(),
        action.rules,
        install=tools.inventory.install,
        environment=tools.environment,
        network=action.name,
        operation=tools.journal.operation,
    )


def delete_bridge(action: DeleteBridge, tools: Tools, progress: Progress) -> None:
    """The entry goes only after the bridge is gone (I3)."""
    bridge.delete(
        tools.helper(),
        install=tools.inventory.install,
        environment=tools.environment,
        network=action.name,
        operation=tools.journal.operation,
    )
    tools.inventory.drop_network(tools.environment, action.name)


def ensure_tap(action: EnsureTap, tools: Tools, progress: Progress) -> None:
    connect(action.name, action.network, action.mtu, tools)


def connect(vm: str, network: str, mtu: int, tools: Tools) -> str:
    """Makes sure of the tap of a VM, and returns the interface's name."""
    return tap.ensure(
        tools.helper(),
        install=tools.inventory.install,
        environment=tools.environment,
        network=network,
        vm=vm,
        mtu=mtu,
        operation=tools.journal.operation,
    )


def delete_tap(action: DeleteTap, tools: Tools, progress: Progress) -> None:
    tap.delete(
        tools.helper(),
        install=tools.inventory.install,
        environment=tools.environment,
        vm=action.name,
        operation=tools.journal.operation,
    )
