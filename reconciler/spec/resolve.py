"""A checked tree to the model, and the checks that span more than one value.

Everything is looked at even where something else is wrong; what depends on a value that was already reported is
passed over in silence, so that each mistake is told once.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from reconciler.model.desired import NO_NETWORK, USER_NETWORK, Controller, DesiredState, Image, Kernel, Network
from reconciler.spec import published
from reconciler.spec.defaults import look_up
from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, MapNode, ScalarNode
from reconciler.spec.values import RESYNC, fraction, seconds
from reconciler.spec.vms import Names, resolve_vms

PREFIXES = range(16, 30)
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918


def resolve(document: Document) -> DesiredState | None:
    """The environment that the document asks for, or None after adding at least one problem to the document."""
    if document.root.bad:
        return None
    networks = _networks(document)
    kernels = _kernels(document)
    images = _images(document)
    vms = resolve_vms(
        document,
        Names(set(_names(document, "images")), {*_names(document, "networks"), USER_NETWORK, NO_NETWORK}),
        networks=networks,
        kernels=kernels,
        images=images,
    )
    name = look_up(document, ("name",))
    controller = _controller(document)
    if document.problems or not name.usable or controller is None:
        return None
    return DesiredState(
        environment=str(name.value),
        networks=networks,
        kernels=kernels,
        images=images,
        vms=vms,
        controller=controller,
    )


def _controller(document: Document) -> Controller | None:
    default = published.defaults("controller")
    given = {key: look_up(document, ("controller", key), default=value) for key, value in default.items()}
    resync = seconds(document, given["resync"], *RESYNC)
    max_delete = fraction(document, given["maxDelete"])
    if resync is None or max_delete is None or not given["prune"].usable:
        return None
    return Controller(resync=resync, prune=bool(given["prune"].value), max_delete=max_delete)


def _names(document: Document, section: str) -> list[str]:
    node = document.find((section,))
    return list(node.members) if isinstance(node, MapNode) else []


def _networks(document: Document) -> dict[str, Network]:
    found: dict[str, Network] = {}
    for name in _names(document, "networks"):
        path = ("networks", name)
        if name in (USER_NETWORK, NO_NETWORK):
            document.report(path, f"{name!r} is built in", "give the network another name", key=True)
            continue
        cidr = _cidr(document, (*path, "cidr"))
        if cidr is None:
            continue
        for other in found.values():
            if cidr.overlaps(other.cidr):
                line, _ = document.position(("networks", other.name), key=True)
                document.report((*path, "cidr"), f"overlaps {other.cidr} of the network {other.name!r} on line {line}")
        mtu = look_up(document, (*path, "mtu"), default=published.defaults("network")["mtu"])
        nameservers = _nameservers(document, (*path, "nameservers"), cidr)
        if mtu.usable:
            found[name] = Network(name=name, cidr=cidr, mtu=mtu.value, nameservers=nameservers)
    return found


def _cidr(document: Document, path: Path) -> IPv4Network | None:
    given = look_up(document, path)
    if not given.usable:
        return None
    try:
        cidr = IPv4Network(given.value, strict=False)
    except ValueError:
        document.report(path, f"{document.shown(path)} is not a network", "write one such as 172.30.7.0/24")
        return None
    low, high = PREFIXES.start, PREFIXES.stop - 1
    if str(cidr) != given.value:
        document.report(path, f"{document.shown(path)} has bits set behind its prefix", f"write {cidr}")
    elif cidr.prefixlen not in PREFIXES:
        document.report(path, f"the prefix is /{cidr.prefixlen}", f"write /{low} to /{high}")
    elif not any(cidr.subnet_of(private) for private in PRIVATE):
        document.report(path, f"{cidr} is not private", f"take a part of {', '.join(map(str, PRIVATE))}")
    else:
        return cidr
    return None


def _nameservers(document: Document, path: Path, cidr: IPv4Network) -> tuple[IPv4Address, ...]:
    """In the order of the file, each once; the gateway if the file says nothing."""
    given = look_up(document, path)
    if not given.usable:
        return (cidr.network_address + 1,)
    servers: dict[IPv4Address, None] = {}
    for index, text in enumerate(given.value):
        here = (*path, index)
        if document.is_bad(here):
            continue
        address = _address(text)
        if address is None or address.is_multicast or address.is_unspecified or address.is_reserved:
            document.report(
                here, f"{document.shown(here)} is not the address of a nameserver", "write one such as 9.9.9.9"
            )
        else:
            servers[address] = None
    return tuple(servers)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _kernels(document: Document) -> dict[str, Kernel]:
    found = {}
    for name in _names(document, "kernels"):
        path: Path = ("kernels", name, "debian")
        suite = look_up(document, (*path, "suite"))
        package = look_up(document, (*path, "package"), default=published.defaults("debianKernel")["package"])
        if suite.usable and package.usable:
            found[name] = Kernel(name=name, suite=suite.value, package=package.value)
    return found


def _images(document: Document) -> dict[str, Image]:
    known = _names(document, "kernels")
    found = {}
    for name in _names(document, "images"):
        path: Path = ("images", name)
        suite = look_up(document, (*path, "debian", "suite"))
        kernel = look_up(document, (*path, "kernel"))
        if kernel.usable and kernel.value not in known and not document.is_bad(("kernels",)):
            hint = did_you_mean(kernel.value, known) or "declare it under `kernels`"
            document.report(kernel.path, f"there is no kernel {_named(document, kernel.path)}", hint)
        if suite.usable and kernel.usable:
            packages = tuple(sorted(set(_packages(document, (*path, "debian", "packages")))))
            found[name] = Image(name=name, suite=suite.value, packages=packages, kernel=kernel.value)
    return found


def _packages(document: Document, path: Path) -> list[str]:
    given = look_up(document, path)
    return [text for index, text in enumerate(given.value or []) if not document.is_bad((*path, index))]


def _named(document: Document, path: Path) -> str:
    node = document.find(path)
    return quote(node.text) if isinstance(node, ScalarNode) else "of this name"
