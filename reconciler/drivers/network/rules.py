"""A network's rules in the host's packet filter, through the helper. May be repeated without harm."""

from __future__ import annotations

from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient
from reconciler.model.rules import NetworkRules


def ensure(
    client: HelperClient, rules: NetworkRules, *, install: str, environment: str, network: str, operation: str = ""
) -> bool:
    """Replaces the network's rules in one step; False if they were there, and as they should be.

    Raises BangerError: a published port is taken, the network has no bridge, the helper is lost (retryable), ...
    """
    with explained(f"rules of network {network}"):
        return client.ensure_rules(
            install=install,
            environment=environment,
            network=network,
            digest=rules.digest,
            cidr=str(rules.cidr),
            cidr6=str(rules.cidr6 or ""),
            nat=rules.nat,
            isolated=rules.isolated,
            dns=rules.dns,
            restricted=rules.restricted,
            egress=[(rule.to, rule.protocol.value, rule.first, rule.last) for rule in rules.egress],
            vms=[(member.vm, str(member.address)) for member in rules.vms],
            ports=[
                (port.host_address, port.host_port, port.protocol.value, port.vm, port.guest_port)
                for port in rules.ports
            ],
            operation=operation,
        )
