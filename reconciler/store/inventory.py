"""The inventory: which environments, networks and VMs were made, or were about to be.

An entry is written before the thing is made and removed after it was seen gone (I3). Each mutation is
recorded together with its intent in one transaction, through `Journal.intend`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, TypeVar

from reconciler.lib.errors import BangerError
from reconciler.model.codec import from_json, to_json
from reconciler.model.vm import Network, Vm
from reconciler.store.db import Database

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRow:
    """An environment and the last state that was asked for it: its last good generation.

    `generation` is counted by the store, from 1: it grows when another state is put. What is put with a row is ignored.
    """

    name: str
    source: str
    digest: str
    desired: DesiredState
    applied_at: float
    generation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRow:
    """One VM as it was asked for last. Times in seconds since the epoch; `forwards` guest port → loopback port.

    `started_at` is None before the first start, and from the moment that the VM is to be stopped: one that has it, and
    does not run, has ended by itself.
    """

    environment: str
    name: str
    id: str
    spec: Vm
    created: Mapping[str, str]
    booted: Mapping[str, str]
    address: IPv4Address | None
    forwards: Mapping[str, int]
    created_at: float
    started_at: float | None
    ready_at: float | None = None
    """When this boot was first seen ready; None again with each start and each stop."""
    halted: str | None = None
    """Why it was stopped on purpose; None again with each start."""
    condemned: str | None = None
    """The desired state for which its removal was approved."""
    generation: int = 0
    """That of the environment when the VM was made; 0 if it is older than any count."""


class Inventory:
    """Typed access to the database. Writing methods are for the holder of the writer lock."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def install(self) -> str:
        """The random id of this state directory: 12 hex digits, stamped on everything that is made."""
        return str(self._db.rows("SELECT value FROM meta WHERE key = 'install'")[0]["value"])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """For as long as the block lasts, nobody writes anything, in whatever process."""
        with self._db.transaction():
            yield

    def environment(self, name: str) -> EnvironmentRow | None:
        rows = self._db.rows("SELECT * FROM environments WHERE name = ?", name)
        return _environment(dict(rows[0])) if rows else None

    def environment_names(self) -> list[str]:
        """All names that something is recorded under, sorted."""
        tables = ("SELECT name FROM environments", "SELECT environment FROM vms", "SELECT environment FROM networks")
        return [row[0] for row in self._db.rows(" UNION ".join(tables) + " ORDER BY 1")]

    def put_environment(self, row: EnvironmentRow) -> None:
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO environments (name, source, digest, desired, applied_at, generation)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row.name,
                row.source,
                row.digest,
                json.dumps(to_json(row.desired)),
                row.applied_at,
                self._next_generation(row),
            )

    def _next_generation(self, row: EnvironmentRow) -> int:
        old = self._db.rows("SELECT desired, generation FROM environments WHERE name = ?", row.name)
        if not old:
            return 1
        try:
            # Not the texts: an older banger wrote fewer fields, whose defaults mean the same.
            same = _read(_desired, str(old[0]["desired"]), row.name) == row.desired
        except BangerError:
            same = False
        return int(old[0]["generation"]) + (not same)

    def generation(self, environment: str) -> int:
        """How often what is asked for has changed, from 1; 0 where nothing was ever applied. Cheap."""
        if not self._db.current:
            return 0
        rows = self._db.rows("SELECT generation FROM environments WHERE name = ?", environment)
        return int(rows[0]["generation"]) if rows else 0

    def drop_environment(self, name: str) -> None:
        """Forgets the environment and what was decided about it. Its events stay: they are how one learns of it."""
        with self._db.transaction():
            self._db.execute("DELETE FROM environments WHERE name = ?", name)
            self._db.execute("DELETE FROM pauses WHERE environment = ?", name)
            self._db.execute("DELETE FROM approvals WHERE environment = ?", name)
            self._db.execute("DELETE FROM sources WHERE environment = ?", name)
            self._db.execute("DELETE FROM transitions WHERE environment = ?", name)

    def networks(self, environment: str) -> dict[str, Network]:
        rows = self._db.rows("SELECT spec FROM networks WHERE environment = ? ORDER BY name", environment)
        found = [_read(_network, row["spec"], f"network of {environment}") for row in rows]
        return {network.name: network for network in found}

    def put_network(self, environment: str, network: Network) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO networks VALUES (?, ?, ?)", environment, network.name, json.dumps(to_json(network))
        )

    def drop_network(self, environment: str, name: str) -> None:
        self._db.execute("DELETE FROM networks WHERE environment = ? AND name = ?", environment, name)

    def vms(self, environment: str | None = None) -> list[VmRow]:
        """The VMs of one environment, or of all, sorted by environment and name."""
        rows = self._db.rows(
            "SELECT * FROM vms WHERE ?1 IS NULL OR environment = ?1 ORDER BY environment, name", environment
        )
        return [_vm(dict(row)) for row in rows]

    def addresses(self) -> list[tuple[str, str, str, str | None]]:
        """Environment, VM, network and address of every VM, sorted; at a tenth of the price of `vms`."""
        rows = self._db.rows(
            "SELECT environment, name, json_extract(spec, '$.network') AS network, address FROM vms"
            " ORDER BY environment, name"
        )
        return [(row["environment"], row["name"], row["network"], row["address"]) for row in rows]

    def vm(self, environment: str, name: str) -> VmRow | None:
        rows = self._db.rows("SELECT * FROM vms WHERE environment = ? AND name = ?", environment, name)
        return _vm(dict(rows[0])) if rows else None

    def put_vm(self, row: VmRow) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO vms (environment, name, id, spec, created, booted, address, forwards, created_at,"
            " started_at, ready_at, halted, condemned, generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.environment,
            row.name,
            row.id,
            json.dumps(to_json(row.spec)),
            json.dumps(dict(row.created)),
            json.dumps(dict(row.booted)),
            str(row.address) if row.address else None,
            json.dumps(dict(row.forwards)),
            row.created_at,
            row.started_at,
            row.ready_at,
            row.halted,
            row.condemned,
            row.generation,
        )

    def mark_ready(self, environment: str, name: str, vm_id: str, started_at: float | None, now: float) -> None:
        """Notes that the boot of `started_at` was seen ready. Only the first time counts, and no later boot.

        The one method that needs no writer lock: whoever waits for a VM may call it while others change the rest.
        """
        self._db.execute(
            "UPDATE vms SET ready_at = ?"
            " WHERE environment = ? AND name = ? AND id = ? AND started_at IS ? AND ready_at IS NULL",
            now,
            environment,
            name,
            vm_id,
            started_at,
        )

    def drop_vm(self, environment: str, name: str) -> None:
        self._db.execute("DELETE FROM vms WHERE environment = ? AND name = ?", environment, name)

    def taken_ports(self) -> set[int]:
        """Every loopback port that some VM of this state directory has been given."""
        return {
            port for row in self._db.rows("SELECT forwards FROM vms") for port in json.loads(row["forwards"]).values()
        }


def _environment(row: dict[str, object]) -> EnvironmentRow:
    return EnvironmentRow(
        name=str(row["name"]),
        source=str(row["source"]),
        digest=str(row["digest"]),
        desired=_read(_desired, str(row["desired"]), f"environment {row['name']}"),
        applied_at=float(str(row["applied_at"])),
        generation=int(str(row.get("generation", 1))),
    )


def _vm(row: dict[str, object]) -> VmRow:
    where = f"vm {row['environment']}/{row['name']}"
    return VmRow(
        environment=str(row["environment"]),
        name=str(row["name"]),
        id=str(row["id"]),
        spec=_read(_spec, str(row["spec"]), where),
        created=json.loads(str(row["created"])),
        booted=json.loads(str(row["booted"])),
        address=IPv4Address(str(row["address"])) if row["address"] else None,
        forwards=json.loads(str(row["forwards"])),
        created_at=float(str(row["created_at"])),
        started_at=_optional(row["started_at"]),
        ready_at=_optional(row["ready_at"]),
        # A reader may find the file as an older banger left it.
        halted=_text(row.get("halted")),
        condemned=_text(row.get("condemned")),
        generation=int(str(row.get("generation", 0))),
    )


def _optional(value: object) -> float | None:
    return None if value is None else float(str(value))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@lru_cache(maxsize=8)
def _desired(text: str) -> DesiredState:
    """A controller reads the same texts in every pass; what they mean never changes. An edit leaves its old text here."""
    from reconciler.model.desired import DesiredState  # noqa: PLC0415  # who looks at VMs alone needs no images

    data = json.loads(text)
    for made in ("images", "kernels"):
        for entry in data.get(made, {}).values():
            # Written while Debian was the only source, whose fields were the entry's own.
            if isinstance(entry, dict) and "source" not in entry:
                source = {key: entry.pop(key) for key in ("suite", "packages", "package") if key in entry}
                entry["source"] = {"tag": "debian", **source}
    return from_json(DesiredState, data)


def _network(text: str) -> Network:
    return from_json(Network, json.loads(text))


@lru_cache(maxsize=4096)
def _spec(text: str) -> Vm:
    return from_json(Vm, json.loads(text))


def _read(decode: Callable[[str], T], text: str, where: str) -> T:
    try:
        return decode(text)
    except ValueError as problem:
        raise BangerError(f"the inventory entry of {where} cannot be read: {problem}") from None
