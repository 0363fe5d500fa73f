"""What a controller is doing when it is killed: the file and the host before, what changes, and how it must end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.api.service import ApplyOptions, Source, VmRef, VmVerb
from reconciler.daemon.engine import Engine
from reconciler.drivers.vmm.backend import Boot
from reconciler.lib.errors import UsageError
from reconciler.spec import load_text
from reconciler.store.inventory import VmRow
from tests.fakes.host import Recorder
from tests.fakes.lasting import LastingHost
from tests.fakes.unthreaded import FILE, Unthreaded

# One step after another: what is counted once is to be there again.
_NOW = ApplyOptions(wait=False, parallel=1)
_SMALL = {"image": "base", "memory": "128MiB", "disk": "64MiB"}


def file(
    *, cidr: str | None = "172.30.7.0/24", packages: tuple[str, ...] = (), prune: bool = True, **vms: Mapping[str, Any]
) -> bytes:
    """A file with these VMs; JSON is YAML."""
    spec = {
        "apiVersion": "banger/v1",
        "name": "env",
        "kernels": {"debian": {"debian": {"suite": "bookworm"}}},
        "images": {"base": {"debian": {"suite": "bookworm", "packages": packages}, "kernel": "debian"}},
        "controller": {"prune": prune},
        "networks": {"lab": {"cidr": cidr}} if cidr else {},
        "vms": {name: {**_SMALL, **fields} for name, fields in vms.items()},
    }
    return json.dumps(spec).encode()


LAB: Mapping[str, Any] = {"network": "lab", "volumes": {"data": {"size": "64MiB", "mount": "/data"}}}
"""A VM on the bridge, with a volume."""
ALONE: Mapping[str, Any] = {"network": "user"}
"""A VM that nothing else here has to do with."""
BOTH = file(dev=LAB, other=ALONE)
FIVE: Mapping[str, Any] = {f"vm{number}": ALONE for number in range(5)}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`before` is kept to its fixed point and `disturb` done; then what a controller does with `after` and `ask` is killed.

    Parameters
    ----------
    after: the file that it watches; None if it watches none.
    ask: what a client asks of it then. It is asked again after the kill, by somebody who was told nothing.
    running, trashed: the VMs that run at the end, and the names of the trash entries.
    untouched: VMs that must run on in the very same process.
    starts: the VMs that are started, at most once each, however often a controller is killed; None if they may be again.
    often: the trash may have several entries of a name, since the VM comes back in between.
    may_start: what is wrong with a start at that moment, or None.
    """

    before: bytes | None = None
    disturb: Callable[[LastingHost], object] = lambda host: None
    after: bytes | None = None
    ask: Callable[[Unthreaded], object] | None = None
    running: frozenset[str] = frozenset({"dev", "other"})
    trashed: tuple[str, ...] = ()
    untouched: frozenset[str] = frozenset({"other"})
    starts: frozenset[str] | None = frozenset({"dev"})
    often: bool = False
    may_start: Callable[[LastingHost, Boot], str | None] = lambda host, boot: None
    end: Callable[[LastingHost, Mapping[str, VmRow]], bool] = lambda host, rows: True


def _lose_vm(host: LastingHost) -> None:
    (dev,) = (vm_id for vm_id in host.backend.table if host.backend.boots[vm_id].label == "env/dev")
    del host.backend.table[dev]


def _lose_bridge(host: LastingHost) -> None:
    host.helper.lose_bridge(next(iter(host.helper.bridges)))


def _flush(host: LastingHost) -> None:
    host.helper.flush_rules()


def _lose_tap(host: LastingHost) -> None:
    host.helper.lose_tap(next(iter(host.helper.taps)))


def _stray(host: LastingHost) -> None:
    install = next(iter(host.backend.table.values())).install
    host.backend.add(install, "feedfeedfeed")


def _apply_without_dev(host: LastingHost) -> None:
    host.apply(load_text(file(prune=False, other=ALONE), str(FILE)))
    host.service.close()


def _restore(controller: Unthreaded) -> None:
    try:
        controller.service.restore("dev", "env", None, _NOW, Recorder())
    except UsageError as problem:
        assert "there is no vm dev in the trash" in str(problem)  # it is back already


def _delete(controller: Unthreaded) -> None:
    if "env" in controller.service.environments():
        controller.service.delete("env", _NOW, Recorder(), lambda plan: True)


def _stop(controller: Unthreaded) -> None:
    controller.service.vm(VmVerb.STOP, VmRef(environment="env", name="dev"), _NOW, Recorder())


def _restart(controller: Unthreaded) -> None:
    controller.service.vm(VmVerb.RESTART, VmRef(environment="env", name="dev"), _NOW, Recorder())


def _recreate(controller: Unthreaded) -> None:
    text = file(packages=("git",), dev=LAB)
    options = ApplyOptions(wait=False, allow_recreate=True)
    source = Source(path=FILE, digest="0" * 64)
    controller.service.apply(load_text(text, str(FILE)), source, options, Recorder(), lambda plan: True)


def _approve(controller: Unthreaded) -> None:
    plan = controller.last_plan("env")
    if plan is not None and plan.approval is not None:
        controller.service.approve(plan.approval)


def _db_first(host: LastingHost, boot: Boot) -> str | None:
    if boot.label == "env/web":
        engine = Engine(host.paths, host.clock)
        row = engine.inventory().vm("env", "db")
        engine.close()
        if row is None or row.id not in host.backend.table or row.ready_at is None:
            return "web was started before db was ready"
    return None


def _memory(host: LastingHost, name: str) -> int:
    """MiB of the VM that runs."""
    boots = [host.backend.boots[vm_id] for vm_id in host.backend.table]
    return next(boot.memory >> 20 for boot in boots if boot.label == f"env/{name}")


def _moved(host: LastingHost, rows: Mapping[str, VmRow]) -> bool:
    (bridge,) = host.helper.bridges.values()
    return str(bridge.cidr) == "172.30.9.0/24" and rows["dev"].booted["address"] == str(rows["dev"].address)


BIGGER = {**LAB, "memory": "256MiB"}
SCENARIOS: Mapping[str, Scenario] = {
    "the first creation": Scenario(starts=frozenset({"dev", "other"}), after=BOTH, untouched=frozenset()),
    "a second vm": Scenario(before=file(other=ALONE), after=BOTH),
    "an edit that restarts": Scenario(
        before=BOTH, after=file(dev=BIGGER, other=ALONE), end=lambda host, rows: _memory(host, "dev") == 256
    ),
    "an edit for the next start": Scenario(
        starts=frozenset(),
        before=BOTH,
        after=file(dev={**BIGGER, "onChange": "next-start"}, other=ALONE),
        untouched=frozenset({"dev", "other"}),
        end=lambda host, rows: rows["dev"].spec.memory >> 20 == 256,
    ),
    "another cidr": Scenario(before=BOTH, after=file(cidr="172.30.9.0/24", dev=LAB, other=ALONE), end=_moved),
    "a vm and its network removed": Scenario(
        starts=frozenset(),
        before=file(dev=LAB, **FIVE),
        after=file(cidr=None, **FIVE),
        running=frozenset(FIVE),
        trashed=("dev",),
        untouched=frozenset(FIVE),
        end=lambda host, rows: not host.helper.bridges,
    ),
    "most vms removed, with approval": Scenario(
        starts=frozenset(),
        before=file(**FIVE),
        after=file(vm0=ALONE, vm1=ALONE),
        ask=_approve,
        running=frozenset({"vm0", "vm1"}),
        trashed=("vm2", "vm3", "vm4"),
        untouched=frozenset({"vm0", "vm1"}),
    ),
    "deleted": Scenario(
        starts=None,
        before=BOTH,
        ask=_delete,
        running=frozenset(),
        trashed=("dev", "other"),
        untouched=frozenset(),
        often=True,
    ),
    # Of a file that does not prune: else the controller would do at once what the file says of it.
    "restored": Scenario(before=file(prune=False, dev=LAB, other=ALONE), disturb=_apply_without_dev, ask=_restore),
    "recreated": Scenario(
        starts=None,
        before=file(dev=LAB),
        after=file(packages=("git",), dev=LAB),
        ask=_recreate,
        running=frozenset({"dev"}),
        trashed=("dev",),
        untouched=frozenset(),
        end=lambda host, rows: load_text(file(packages=("git",)), "").images["base"].id == rows["dev"].spec.image_id,
    ),
    "a vmm that was killed": Scenario(before=BOTH, after=BOTH, disturb=_lose_vm),
    "a bridge that was removed": Scenario(
        starts=frozenset(), before=BOTH, after=BOTH, disturb=_lose_bridge, untouched=frozenset({"dev", "other"})
    ),
    "a packet filter that was flushed": Scenario(
        starts=frozenset(), before=BOTH, after=BOTH, disturb=_flush, untouched=frozenset({"dev", "other"})
    ),
    "a port that is published": Scenario(
        starts=frozenset(),
        before=BOTH,
        after=file(dev={**LAB, "ports": ["8080:80"]}, other=ALONE),
        untouched=frozenset({"dev", "other"}),
        end=lambda host, rows: (
            [r.fields["ports"] for r in host.helper.rules.values()] == [[("", 8080, "tcp", "dev", 80)]]
        ),
    ),
    "a tap that was removed": Scenario(before=BOTH, after=BOTH, disturb=_lose_tap),
    "a reboot of the host": Scenario(
        starts=frozenset({"dev", "other"}), before=BOTH, after=BOTH, disturb=LastingHost.reboot, untouched=frozenset()
    ),
    "a ttl that is over": Scenario(
        starts=frozenset(), before=BOTH, after=file(dev={**LAB, "ttl": "1s"}, other=ALONE), running=frozenset({"other"})
    ),
    "stopped by the file": Scenario(
        starts=frozenset(),
        before=BOTH,
        after=file(dev={**LAB, "state": "stopped"}, other=ALONE),
        running=frozenset({"other"}),
    ),
    "stopped by a person": Scenario(
        starts=frozenset(), before=BOTH, after=BOTH, ask=_stop, running=frozenset({"other"})
    ),
    "restarted by a person": Scenario(starts=None, before=BOTH, after=BOTH, ask=_restart),
    "one after another": Scenario(
        starts=frozenset({"web", "db"}),
        after=file(web={**ALONE, "dependsOn": {"db": "ready"}}, db=LAB),
        running=frozenset({"web", "db"}),
        untouched=frozenset(),
        may_start=_db_first,
    ),
    "a stray vmm": Scenario(
        starts=frozenset(), before=BOTH, after=BOTH, disturb=_stray, untouched=frozenset({"dev", "other"})
    ),
}
