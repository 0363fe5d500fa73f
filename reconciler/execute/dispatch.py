"""Which function does which action, and what is recorded before it.

Recording and doing are two tables: the first runs inside the transaction that stores the intent, so that an
inventory entry and its intent appear together, before the side effect (I3). A test holds that the tables cover
the closed union of actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reconciler.drivers.guest import toolsdisk
from reconciler.drivers.images import build
from reconciler.drivers.kernels import fetch
from reconciler.execute import cache, inside, networks, provisioning, readiness, trash, vms, workspaces
from reconciler.execute.making import packer
from reconciler.execute.tools import Tools
from reconciler.lib.progress import Progress
from reconciler.model import actions as a

RECORD: Mapping[type, Callable[[Any, Tools], None]] = {
    a.EnsureBridge: lambda action, tools: tools.inventory.put_network(tools.environment, action.network),
    a.EnsureRules: lambda action, tools: tools.inventory.put_network(tools.environment, action.network),
    a.CreateVm: vms.record_creation,
    a.UpdateVm: vms.update,
    a.StopVm: vms.record_stop,
    a.ApproveRemoval: vms.condemn,
    a.RestoreVm: trash.record_restoration,
    a.EvictEntries: cache.record_evictions,
    a.ForgetEnvironment: lambda action, tools: tools.inventory.drop_environment(action.name),
}

PERFORM: Mapping[type, Callable[[Any, Tools, Progress], None]] = {
    a.FetchKernel: lambda action, tools, progress: fetch.fetch(action.kernel, tools.paths, progress),
    a.FetchTools: lambda action, tools, progress: toolsdisk.fetch(action.tools, tools.paths, progress),
    a.BuildImage: lambda action, tools, progress: build.build(
        action.image, tools.paths, progress, packer(tools.paths, tools.accelerator)
    ),
    a.EnsureBridge: networks.ensure_bridge,
    a.EnsureRules: networks.ensure_rules,
    a.DeleteBridge: networks.delete_bridge,
    a.EnsureTap: networks.ensure_tap,
    a.DeleteTap: networks.delete_tap,
    a.CreateVm: vms.create,
    a.StartVm: vms.start,
    a.StopVm: vms.stop,
    a.PublishPorts: vms.publish_ports,
    a.ConfigureGuest: inside.configure_guest,
    a.ProvisionVm: provisioning.provision_vm,
    a.AwaitReady: readiness.await_ready,
    a.ShipWorkspace: workspaces.ship,
    a.TrashVm: trash.trash_vm,
    a.TrashVolumes: trash.trash_volumes,
    a.RestoreVm: trash.restore_vm,
    a.ForgetEnvironment: trash.forget,
    a.KillStray: vms.kill_stray,
    a.SweepStaging: cache.sweep,
    a.EvictEntries: cache.evict_entries,
}

RECORD_ONLY = frozenset({a.UpdateVm, a.ApproveRemoval})
"""Actions that are done by being recorded."""


def record(action: a.Action, tools: Tools) -> None:
    """Writes to the inventory what must be known if everything ends in the next instant."""
    if type(action) in RECORD:
        RECORD[type(action)](action, tools)


def perform(action: a.Action, tools: Tools, progress: Progress) -> None:
    """Does it. May be called again after any failure, and after any kill."""
    if type(action) not in RECORD_ONLY:
        PERFORM[type(action)](action, tools, progress)
