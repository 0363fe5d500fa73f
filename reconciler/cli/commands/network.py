"""`banger network …`: the networks, their rules, and who is on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from reconciler.cli import target, wire
from reconciler.cli.options import NetworkName, Output, all_option, file_option, output_option
from reconciler.cli.render import document, listing, table
from reconciler.cli.terminal import harmless, put, say
from reconciler.cli.vmtables import published
from reconciler.lib.errors import UsageError
from reconciler.model.status import ObjectStatus

_HEADER = ("NAME", "ENVIRONMENT", "STATE", "CIDR", "CIDR6", "BRIDGE", "NAT", "DNS", "ISOLATED", "EGRESS", "RULES", "VMS",
           "PORTS", "MESSAGE")  # fmt: skip


@click.group()
def network() -> None:
    """List the networks, and show who is on them.

    They are made from `networks` of the file. The built-in ones, `user` and `none`, are not listed: the host has nothing
    of them.
    """


@network.command("list")
@file_option(text="The file whose environment is meant. [default: ./banger.yaml; without it, all environments]")
@all_option()
@output_option()
def list_networks(*, file: Path | None, everywhere: bool, output: Output) -> None:
    """List the networks, observed now."""
    environment = None if everywhere else target.environment(file)
    with wire.service() as service:
        found = service.networks(environment)
    if output is not Output.TABLE:
        _print(found, output)
    elif not found:
        say(f"no networks in environment {environment}" if environment else "no networks")
    else:
        put(table(_HEADER, [_row(item) for item in found]))


@network.command()
@file_option()
@output_option()
@click.argument("name", metavar="NETWORK", type=NetworkName())
def show(*, file: Path | None, output: Output, name: str) -> None:
    """Show one network: its settings, its rules, its VMs and what they publish."""
    environment, _, bare = name.removeprefix("network/").rpartition("/")
    with wire.service() as service:
        everything = service.networks(environment or target.environment(file))
    found = [item for item in everything if item.name == bare]
    if not found:
        known = ", ".join(sorted(item.name for item in everything))
        hint = f"there are: {known}" if known else "there is none; `banger apply` makes what `networks` declares"
        raise UsageError(
            f"there is no network {bare}" + (f" in environment {environment}" if environment else ""), hint=hint
        )
    if len(found) > 1:
        choice = " or ".join(f"{item.environment}/{item.name}" for item in found)
        raise UsageError(f"network {bare} is in more than one environment", hint=f"write {choice}")
    if output is not Output.TABLE:
        _print(found, output)
        return
    put("\n".join(_portrait(found[0])))


def _print(found: list[ObjectStatus], output: Output) -> None:
    if output is Output.NAME:
        for item in found:
            put(f"{item.kind}/{item.environment}/{item.name}")
    else:
        put(document(listing([item.to_json() for item in found]), output))


def _row(item: ObjectStatus) -> list[str]:
    has = item.details
    return [
        item.name,
        item.environment,
        item.state.value,
        has.get("cidr") or "-",
        has.get("cidr6") or "",
        has.get("interface") or "-",
        *(_yes(has.get(key)) for key in ("nat", "dns", "isolated")),
        _egress(has),
        has.get("rules") or "-",
        str(len(has.get("vms", ()))),
        str(len(has.get("ports", ()))),
        " ".join(harmless(item.message).split()),
    ]


def _portrait(item: ObjectStatus) -> Iterator[str]:
    has = item.details
    pairs = [
        ("network", f"{item.environment}/{item.name}"),
        ("state", item.state.value + (f": {harmless(item.message)}" if item.message else "")),
        ("bridge", has.get("interface")),
        ("cidr", has.get("cidr")),
        ("cidr6", has.get("cidr6")),
        ("gateway", item.address),
        ("mtu", has.get("mtu")),
        *((key, _yes(has.get(key))) for key in ("nat", "dns", "isolated")),
        ("egress", " ".join(has["egress"]) or "nowhere" if has.get("egress") is not None else _egress(has)),
        ("rules", has.get("rules")),
    ]
    width = max(len(key) for key, _ in pairs)
    yield from (f"{key.ljust(width)}  {value}" for key, value in pairs if value is not None)
    if vms := has.get("vms"):
        yield ""
        rows = [[vm["name"], vm["address"], vm["address6"] or "", _ports(vm["name"], has)] for vm in vms]
        yield table(("VM", "ADDRESS", "ADDRESS6", "PUBLISHED"), rows)


def _ports(vm: str, has: Any) -> str:
    return " ".join(published(port) for port in has.get("ports", ()) if port["vm"] == vm)


def _yes(value: object) -> str:
    return "-" if value is None else "yes" if value else "no"


def _egress(has: Any) -> str:
    if "egress" not in has:
        return "-"
    rules = has["egress"]
    return (
        "everywhere" if rules is None else f"{len(rules)} rule{'s' if len(rules) > 1 else ''}" if rules else "nowhere"
    )
