"""Carries requests out. Bridges and taps here, by netlink and by ioctl on /dev/net/tun; the rest in modules of its own.

Every request but `watch_rules` holds one host-wide kernel lock, so that what policy saw is what is changed.
Documentation/networking/tuntap.rst says what the ioctls do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from reconciler.helper import policy, resolving, rules
from reconciler.helper.links import World, bridge_changes, tap_changes
from reconciler.helper.names import LinkOwner
from reconciler.helper.netlink import Routing
from reconciler.helper.protocol import Code, Done, Op, Refusal, Request
from reconciler.helper.run import LOCK, locked
from reconciler.helper.watch import watch

_ROUNDS = 3
_IPV6_LINKS = Path("/proc/self/net/dev_snmp6")
"""Has an entry for each link, if there is IPv6 at all."""

# linux/if_tun.h. VNET_HDR is what QEMU asks for; it may turn it off when it opens the tap, unlike MULTI_QUEUE.
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("16sH22x")


def perform(uid: int, request: Request, connection: int, *, lock: Path = LOCK) -> Done:
    """Does what a checked request asks, if policy permits it; `uid` is the peer's, `connection` its descriptor."""
    if request.op is Op.WATCH_RULES:
        return watch(request.generation, connection)
    with locked(lock) as run, Routing() as routing:
        owner = policy.subject(uid, request)
        world = _world(routing, owner, request)
        policy.permit(uid, request, world)
        for corpse in policy.corpses(world):
            if corpse.name != owner.interface:
                routing.delete(corpse.index)
        link = world.links.get(owner.interface)
        match request.op:
            case Op.ENSURE_BRIDGE:
                changed = _ensure_bridge(routing, owner, request, world)
            case Op.ENSURE_TAP:
                changed = _ensure_tap(routing, owner, request, world)
            case Op.DELETE_BRIDGE | Op.DELETE_TAP:
                changed = request.op is Op.DELETE_BRIDGE and rules.delete(run, owner, world)
                if link is not None:
                    routing.delete(link.index)
                    changed = True
            case Op.ENSURE_RULES:
                changed = rules.ensure(run, owner, request, world)
            case Op.SHOW_RULES:
                return rules.show(run, uid, request.install, world)
            case Op.ALLOW_ADDRESSES:
                changed = rules.allow(run, owner, request)
            case Op.DNS_SOCKETS:
                found = resolving.sockets(world.gateway(owner))
                return Done(owner.interface, True, descriptors=found)
            case Op.ROUTE_NAMES:
                changed = resolving.route(run, owner.interface, world.gateway(owner))
        return Done(owner.interface, changed)


def _world(routing: Routing, owner: LinkOwner, request: Request) -> World:
    """As much of what exists as the operation needs: taps are made by the thousand."""
    if "vm" in request.op.fields:
        names = {owner.interface, policy.bridge_of(owner, request).interface}
        links = {name: link for name in names if (link := routing.link(name))}
        # Whose they are is asked only once there are enough to matter: that takes a millisecond for each 50.
        many = not _ipv6() or len(os.listdir(_IPV6_LINKS)) > policy.MAX_TAPS  # noqa: PTH208 - no use for paths
        return World(links, taps=routing.count_taps(owner.uid) if many else 0)
    routes = routing.routes() if request.op is Op.ENSURE_BRIDGE else ()
    return World(routing.links(), tuple(routing.addresses()), tuple(routes))


def _ensure_bridge(routing: Routing, owner: LinkOwner, request: Request, world: World) -> bool:
    wanted = policy.gateways(request)
    for done in range(_ROUNDS):
        link = world.links.get(owner.interface)
        if link is None:
            # A bridge follows the smallest MTU of its ports until its own is changed (br_change_mtu in
            # net/bridge/br_device.c), and setting what it has already is no change. So it is made with another one.
            routing.create_bridge(owner.interface, {"mac": owner.mac, "mtu": request.mtu - 1})
        else:
            changes = bridge_changes(owner, link, mtu=request.mtu)
            found = world.addresses_of(link)
            if not changes and set(found) == set(wanted):
                return done > 0
            if changes:
                routing.set(link.index, changes, ipv6=_ipv6())
            # Deleted before added: deleting a primary address takes the secondary ones of its subnet with it.
            for stale in set(found) - set(wanted):
                routing.delete_address(link.index, stale)
            for missing in set(wanted) - set(found):
                routing.add_address(link.index, missing)
        world = World(routing.links(), tuple(routing.addresses()))
    raise Refusal(Code.FAILED, f"{owner.interface} does not keep what is set on it")


def _ensure_tap(routing: Routing, owner: LinkOwner, request: Request, world: World) -> bool:
    bridge = world.links[policy.bridge_of(owner, request).interface]
    link = world.links.get(owner.interface)
    changed = link is None or link.tap_owner != owner.uid
    if changed:
        with _attached(owner, 0 if link else _IFF_TUN_EXCL) as fd:
            fcntl.ioctl(fd, _TUNSETOWNER, owner.uid)
            if link is None:
                # Persistent once it is known as ours: until then the kernel removes it with our descriptor.
                made = routing.link(owner.interface)
                if made is None:
                    raise Refusal(Code.FAILED, f"{owner.interface} went while it was made")
                routing.set(made.index, {"alias": owner.alias}, ipv6=_ipv6())
                fcntl.ioctl(fd, _TUNSETPERSIST, 1)
                link = replace(made, alias=owner.alias)
    assert link is not None
    changes = tap_changes(owner, link, bridge=bridge, mtu=request.mtu)
    if changes:
        routing.set(link.index, changes, ipv6=_ipv6())
    return changed or bool(changes)


@contextmanager
def _attached(owner: LinkOwner, flags: int = 0) -> Iterator[int]:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as problem:
        raise Refusal(Code.FAILED, f"/dev/net/tun: {problem.strerror}; is the tun module loaded?") from None
    try:
        flags |= _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(owner.interface.encode(), flags))
        except OSError as problem:
            code = Code.IN_USE if problem.errno == errno.EBUSY else Code.FAILED
            raise Refusal(code, f"{owner.interface}: {problem.strerror}; does a program have it open?") from None
        yield fd
    finally:
        os.close(fd)


def _ipv6() -> bool:
    return _IPV6_LINKS.exists()
