"""One look at everything that an environment has on this host."""

from __future__ import annotations

from reconciler.lib.paths import Paths
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.observe.artifacts import observe_corpses, observe_images, observe_kernels, observe_tools
from reconciler.observe.networks import Bridges, ReadFilter, Rules, Taps, observe_links, observe_rules
from reconciler.observe.sources import observe_secrets, observe_sources
from reconciler.observe.vms import observe_processes, observe_strays, observe_vm, observe_volumes
from reconciler.store.inventory import Inventory


def observe_unborn(environment: str, paths: Paths, desired: DesiredState | None = None) -> ObservedState:
    """The world of a state directory that does not exist yet: nothing is ours but what the cache holds."""
    return ObservedState(
        install="",
        environment=environment,
        images=observe_images(paths),
        kernels=observe_kernels(paths),
        tools=observe_tools(paths),
        sources=observe_sources(desired.vms.values() if desired is not None else ()),
        secrets=observe_secrets(desired.vms.values() if desired is not None else (), paths),
    )


def observe(
    environment: str, inventory: Inventory, paths: Paths, read_filter: ReadFilter, desired: DesiredState | None = None
) -> ObservedState:
    """Reads the host.

    Links and rules are read only if the file or the inventory knows a network: each of them is preceded by
    an inventory entry of its network, so without one there is none of ours.
    """
    install = inventory.install
    wanted = desired.vms if desired is not None else {}
    rows = inventory.vms()
    processes = observe_processes(install)
    networks = inventory.networks(environment)
    bridges: Bridges = {}
    taps: Taps = {}
    rules: Rules = {}
    if networks or (desired is not None and desired.networks):
        # In this order: a bridge that goes takes along what its rules need. Read before, it would look as if the rules
        # alone had to be mended, and that fails.
        rules = observe_rules(install, environment, read_filter)
        bridges, taps = observe_links(install, environment)
    return ObservedState(
        install=install,
        environment=environment,
        generation=inventory.generation(environment),
        vms={
            row.name: observe_vm(row, install, paths, processes, wanted.get(row.name))
            for row in rows
            if row.environment == environment
        },
        processes=processes if isinstance(processes, Unknown) else None,
        networks=networks,
        bridges=bridges,
        taps=taps,
        rules=rules,
        images=observe_images(paths),
        kernels=observe_kernels(paths),
        tools=observe_tools(paths),
        volumes=observe_volumes(environment, paths),
        sources=observe_sources(wanted.values()),
        secrets=observe_secrets(wanted.values(), paths),
        strays=observe_strays(rows, processes),
        corpses=observe_corpses(paths),
    )
