"""The VMs of a file: counts expanded, defaults filled in, references followed, limits held."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from reconciler.model.artifacts import Image, Kernel
from reconciler.model.ids import OBJECT_NAME
from reconciler.model.vm import (
    NO_NETWORK,
    USER_NETWORK,
    Backend,
    Network,
    OnChange,
    Publication,
    Ready,
    RestartPolicy,
    RunState,
    Vm,
    Volume,
)
from reconciler.spec.defaults import Given, Origin, VmFields, look_up
from reconciler.spec.depends import resolve_dependencies
from reconciler.spec.inside import resolve_files
from reconciler.spec.problems import Path, did_you_mean
from reconciler.spec.provision import resolve_provision
from reconciler.spec.publications import Written, check_clashes, resolve_ports
from reconciler.spec.settings import resolve_env, resolve_secrets
from reconciler.spec.tree import Document, MapNode
from reconciler.spec.values import DISK, MEMORY, TIMEOUT, TTL, mount_path, seconds, size_in_bytes
from reconciler.spec.workspaces import resolve_workspace

MAX_VMS = 1024  # what the root helper gives taps to
MAX_PORTS = 1024  # what it publishes of one network
MAX_RULES_SIZE = 63 * 1024  # bytes: its longest request, less what else stands in one


@dataclass(frozen=True, slots=True)
class Names:
    """What may be referred to, including what is declared wrongly: that is another problem."""

    images: set[str]
    networks: set[str]


def resolve_vms(
    document: Document,
    names: Names,
    *,
    networks: Mapping[str, Network],
    kernels: Mapping[str, Kernel],
    images: Mapping[str, Image],
) -> dict[str, Vm]:
    """Every VM of the environment by name, in the file's order. What is wrong is added to the document."""
    section = document.find(("vms",))
    if not isinstance(section, MapNode) or section.bad:
        return {}
    builder = _Builder(document, names, networks, kernels, images)
    vms: dict[str, Vm] = {}
    origins: dict[str, str] = {}
    expansion: dict[str, list[str]] = {}
    published: list[tuple[str, Path, Publication]] = []
    if _too_many(document, list(section.members)):
        return {}
    for name in section.members:
        if document.full:
            break
        if document.is_bad(("vms", name)):
            continue
        template = builder.build(name)
        expansion[name] = _expand(document, name)
        for place, expanded in enumerate(expansion[name]):
            if expanded in origins:
                line, _ = document.position(("vms", origins[expanded]), key=True)
                message = f"makes a VM {expanded!r}, which {origins[expanded]!r} on line {line} makes too"
                document.report(("vms", name), message, "rename one of them", key=True)
            origins.setdefault(expanded, name)
            ports = [(written.path, written.advanced(place)) for written in builder.ports.get(name, ())]
            published += [(expanded, path, port) for path, port in ports]
            if template is not None:
                vms[expanded] = replace(template, name=expanded, ports=tuple(sorted(port for _, port in ports)))
    check_clashes(document, published)
    _check_room(document, vms, networks)
    dependencies = resolve_dependencies(document, list(section.members), expansion)
    return {name: replace(vm, depends_on=dependencies.get(origins[name], ())) for name, vm in vms.items()}


def _count(document: Document, name: str) -> int | None:
    """The `count` of a VM of the file; None without one, or with one that was reported."""
    given = look_up(document, ("vms", name, "count"))
    return int(given.value) if given.usable else None


def _too_many(document: Document, names: list[str]) -> bool:
    """Before anything is expanded: the product of a short file can be large."""
    total = 0
    for name in names:
        count = _count(document, name)
        total += 1 if count is None else count
    if total > MAX_VMS:
        document.report(("vms",), f"asks for {total} VMs", f"an environment has at most {MAX_VMS}", key=True)
    return total > MAX_VMS


def _expand(document: Document, name: str) -> list[str]:
    """`web` without a count is `web`; with one, even 1, it is numbered, so that a changed count renames nothing."""
    count = _count(document, name)
    if count is None:
        return [name]
    names = [f"{name}-{number}" for number in range(1, count + 1)]
    if names and not re.fullmatch(OBJECT_NAME, names[-1]):
        document.report(
            ("vms", name), f"makes the name {names[-1]!r}, which is too long", "take a shorter name", key=True
        )
        return []
    return names


def _check_room(document: Document, vms: Mapping[str, Vm], networks: Mapping[str, Network]) -> None:
    wanted = Counter(vm.network for vm in vms.values())
    for name, network in networks.items():
        room = network.cidr.num_addresses - 3  # less the network, its broadcast address and the gateway
        if wanted[name] > room:
            hint = "use a shorter prefix, or fewer VMs"
            document.report(("networks", name, "cidr"), f"has room for {room} VMs, and {wanted[name]} ask for it", hint)
        mine = [vm for vm in vms.values() if vm.network == name]
        ports = sum(len(vm.ports) for vm in mine)
        if ports > MAX_PORTS:
            hint = f"a network has at most {MAX_PORTS}: divide it"
            document.report(("networks", name), f"its VMs publish {ports} ports", hint, key=True)
        elif (size := _rules_size(network, mine)) > MAX_RULES_SIZE:
            what = f"its VMs, their ports and `egress` take {size} bytes of the {MAX_RULES_SIZE} that rules may have"
            document.report(("networks", name), what, "use shorter names, fewer ports, or two networks", key=True)


def _rules_size(network: Network, vms: Iterable[Vm]) -> int:
    """Bytes of what the root helper is told at once, all addresses taken for long ones."""
    rows: list[list[object]] = [[rule.to, rule.protocol.value, rule.first, rule.last] for rule in network.egress or ()]
    for vm in vms:
        rows.append([vm.name, "255.255.255.255"])
        rows += [[p.host_address, p.host_port, p.protocol.value, vm.name, p.guest_port] for p in vm.ports]
    return len(json.dumps(rows, separators=(",", ":")))


class _Builder:
    """Builds one VM of the file after the other; remembers the addresses that are taken."""

    def __init__(
        self,
        document: Document,
        names: Names,
        networks: Mapping[str, Network],
        kernels: Mapping[str, Kernel],
        images: Mapping[str, Image],
    ) -> None:
        self._document = document
        self._names = names
        self._networks = networks
        self._kernels = kernels
        self._images = images
        self._addresses: dict[tuple[str, IPv4Address], str] = {}
        self.ports: dict[str, list[Written]] = {}
        """What each VM of the file publishes, the first of its `count` speaking for all."""

    def build(self, name: str) -> Vm | None:
        """The VM under its name in the file, or None where something that was reported is missing for it."""
        fields = VmFields(self._document, ("vms", name))
        image = self._image(fields)
        network = self._network(fields)
        memory = size_in_bytes(self._document, fields.get("memory"), *MEMORY)
        disk = size_in_bytes(self._document, fields.get("disk"), *DISK)
        address = self._address(fields, network)
        volumes = self._volumes(fields)
        count = _count(self._document, name) or 1
        self.ports[name] = resolve_ports(self._document, (*fields.path, "ports"), network, self._networks, count)
        files = resolve_files(self._document, fields)
        env = resolve_env(self._document, fields)
        secrets = resolve_secrets(self._document, fields, network)
        provision = resolve_provision(self._document, fields, network)
        ready = self._ready(fields, network)
        simple = [fields.get(key) for key in ("cpus", "backend", "protect", "state", "restart", "onChange", "user")]
        ttl = seconds(self._document, fields.get("ttl"), *TTL)
        workspace = resolve_workspace(self._document, fields, network)
        kernel = self._kernels.get(image.kernel) if image is not None else None
        if image is None or kernel is None or network is None or memory is None or disk is None or ready is None:
            return None
        if not all(given.usable for given in simple):
            return None
        cpus, backend, protect, state, restart, on_change, user = (given.value for given in simple)
        return Vm(
            name=name,
            image=image.name,
            image_id=image.id,
            kernel=kernel.name,
            kernel_id=kernel.id,
            cpus=cpus,
            memory=memory,
            disk=disk,
            network=network,
            address=address,
            backend=Backend(backend),
            volumes=volumes,
            files=files,
            env=env,
            secrets=secrets,
            provision=provision,
            ready=ready,
            protect=protect,
            state=RunState(state),
            restart=RestartPolicy(restart),
            on_change=OnChange(on_change),
            ttl=ttl,
            user=user,
            workspace=workspace,
            image_digest=image.digest,
        )

    def _image(self, fields: VmFields) -> Image | None:
        given = fields.get("image")
        if given.origin is Origin.NOWHERE:
            self._document.report(
                fields.path, "'image' is missing", "name one of `images`, here or under `defaults`", key=True
            )
        if not given.usable:
            return None
        if given.value not in self._names.images and not self._document.is_bad(("images",)):
            hint = did_you_mean(given.value, self._names.images) or "declare it under `images`"
            self._document.report(given.path, f"there is no image {self._document.shown(given.path)}", hint)
        return self._images.get(given.value)

    def _network(self, fields: VmFields) -> str | None:
        given = fields.get("network")
        if not given.usable:
            return None
        if given.value not in self._names.networks and not self._document.is_bad(("networks",)):
            hint = did_you_mean(given.value, self._names.networks)
            self._document.report(given.path, f"there is no network {self._document.shown(given.path)}", hint)
            return None
        return str(given.value)

    def _address(self, fields: VmFields, network: str | None) -> IPv4Address | None:
        given = fields.get("address")
        if not given.usable or network is None:
            return None
        if network in (USER_NETWORK, NO_NETWORK):
            hint = "leave it out, or put the VM on one of `networks`"
            self._document.report(given.path, f"an address on the network {network!r}", hint)
            return None
        count = _count(self._document, str(fields.path[-1]))
        if count is not None and count > 1:
            hint = "leave it out (each VM gets an address and keeps it), or write one VM for each address"
            self._document.report(given.path, f"one address for {count} VMs", hint)
            return None
        try:
            address = IPv4Address(given.value)
        except ValueError:
            self._document.report(given.path, f"{self._document.shown(given.path)} is not an IPv4 address")
            return None
        return address if self._address_fits(given, address, network, str(fields.path[-1])) else None

    def _address_fits(self, given: Given, address: IPv4Address, network: str, vm: str) -> bool:
        home = self._networks.get(network)
        if home is None:
            return False
        first, last = home.gateway + 1, home.cidr.broadcast_address - 1
        if not first <= address <= last:
            ends = {
                home.cidr.network_address: "the network itself",
                home.gateway: "the host's own",
                home.cidr.broadcast_address: "the broadcast address",
            }
            message = f"{address} is {ends.get(address, 'not')} in {home.cidr} of the network {network!r}"
            self._document.report(given.path, message, f"write {first} to {last}")
            return False
        if other := self._addresses.get((network, address)):
            line, _ = self._document.position(("vms", other, "address"))
            message = f"{address} is the address of {other!r} on line {line} too"
            self._document.report(given.path, message, "give each VM its own, or leave it out")
            return False
        self._addresses[network, address] = vm
        return True

    def _volumes(self, fields: VmFields) -> tuple[Volume, ...]:
        """Sorted by mount, so that a folder is mounted before what lies below it."""
        found: dict[str, Volume] = {}
        for name in fields.volumes():
            mount_given, size_given = fields.volume(name, "mount"), fields.volume(name, "size")
            for key, given in (("mount", mount_given), ("size", size_given)):
                if given.origin is Origin.NOWHERE:
                    example = "mount: /var/lib/data" if key == "mount" else "size: 1GiB"
                    self._document.report(
                        (*fields.path, "volumes", name), f"{key!r} is missing", f"for example `{example}`", key=True
                    )
            size = size_in_bytes(self._document, size_given, *DISK)
            mount = mount_path(self._document, mount_given)
            if mount is None:
                continue
            if mount in found:
                message = f"{mount} is the mount of the volume {found[mount].name!r} too"
                self._document.report(mount_given.path, message, "give each volume its own")
            elif size is not None:
                found[mount] = Volume(name=name, size=size, mount=mount)
        return tuple(found[mount] for mount in sorted(found))

    def _ready(self, fields: VmFields, network: str | None) -> Ready | None:
        ssh, port, timeout = fields.ready("ssh"), fields.ready("port"), fields.ready("timeout")
        agent = fields.ready("agent")
        if network == NO_NETWORK:
            for key, given in (("ssh", ssh), ("port", port)):
                if given.origin is Origin.FILE and given.value is not False:
                    hint = f"leave `ready.{key}` out" if key == "port" else "write `ssh: false`, or leave it out"
                    self._document.report(
                        given.path, f"cannot be reached: {fields.path[-1]} has the network 'none'", hint
                    )
        timeout_seconds = seconds(self._document, timeout, *TIMEOUT)
        if Origin.BAD in (ssh.origin, agent.origin, port.origin) or timeout_seconds is None:
            return None
        wants_ssh = bool(ssh.value) if ssh.origin is Origin.FILE else network != NO_NETWORK
        wants_agent = bool(agent.value) if agent.origin is Origin.FILE else network == NO_NETWORK
        return Ready(ssh=wants_ssh, agent=wants_agent, port=port.value, timeout=timeout_seconds)
