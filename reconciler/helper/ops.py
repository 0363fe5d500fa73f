"""Carries requests out: the only module of the helper that touches the host's network.

Runs `ip` (ip-link(8), ip-address(8)) by absolute path in an empty environment, and makes taps by ioctl on
/dev/net/tun (Documentation/networking/tuntap.rst). Every request that changes something holds one host-wide
kernel lock, so that what policy saw is what the commands find.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.helper import policy, shape
from reconciler.helper.links import Link, World, parse_links, parse_routes
from reconciler.helper.names import LinkOwner
from reconciler.helper.protocol import Code, DeleteBridge, DeleteTap, Done, EnsureBridge, EnsureTap, Refusal, Request

# Not below /run/lock, which every user may write to: a stranger could hold the lock.
LOCK = Path("/run/banger/helper.lock")
_IP = ("/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip")
_IP_SECONDS = 10
_ROUNDS = 3

# linux/if_tun.h. VNET_HDR is what QEMU asks for; it may turn it off when it opens the tap, unlike MULTI_QUEUE.
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("16sH22x")


def perform(uid: int, request: Request, *, lock: Path = LOCK) -> Done:
    """Does what a checked request asks, if policy permits it; `uid` is the peer's. Refusal otherwise."""
    with _locked(lock) as ip:
        world = _world(ip, routes=isinstance(request, EnsureBridge))
        policy.permit(uid, request, world)
        owner = policy.subject(uid, request)
        for name in policy.corpses(world):
            if name != owner.interface:
                ip(*shape.delete_command(name))
        match request:
            case EnsureBridge():
                changed = _ensure_bridge(ip, owner, request, world)
            case EnsureTap():
                changed = _ensure_tap(ip, owner, request, world)
            case DeleteBridge() | DeleteTap():
                changed = owner.interface in world.links
                if changed:
                    ip(*shape.delete_command(owner.interface))
        return Done(owner.interface, changed)


def _ensure_bridge(ip: _Ip, owner: LinkOwner, request: EnsureBridge, world: World) -> bool:
    address = policy.gateway(request.cidr)
    link = world.links.get(owner.interface)
    for done in range(_ROUNDS):
        commands = shape.bridge_commands(owner, link, address=address, mtu=request.mtu, ipv6=_ipv6())
        if not commands:
            return done > 0
        for command in commands:
            ip(*command)
        link = _world(ip, routes=False).links.get(owner.interface)
    raise Refusal(Code.FAILED, f"{owner.interface} does not keep what is set on it")


def _ensure_tap(ip: _Ip, owner: LinkOwner, request: EnsureTap, world: World) -> bool:
    bridge = policy.bridge_of(owner.uid, request).interface
    link = world.links.get(owner.interface)
    if link is None:
        _create_tap(ip, owner, bridge, request.mtu)
        return True
    changed = False
    if _uid_of(link.tap_owner) != owner.uid:
        _reown_tap(owner)
        changed = True
    for command in shape.tap_commands(owner, link, bridge=bridge, mtu=request.mtu, ipv6=_ipv6()):
        ip(*command)
        changed = True
    return changed


def _create_tap(ip: _Ip, owner: LinkOwner, bridge: str, mtu: int) -> None:
    """Makes it persistent last: whatever ends us before that, the kernel removes the tap with our descriptor."""
    with _attached(owner, _IFF_TUN_EXCL) as fd:
        fcntl.ioctl(fd, _TUNSETOWNER, owner.uid)
        bare = Link(name=owner.interface, mtu=0)
        for command in shape.tap_commands(owner, bare, bridge=bridge, mtu=mtu, ipv6=_ipv6()):
            ip(*command)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)


def _reown_tap(owner: LinkOwner) -> None:
    with _attached(owner) as fd:
        fcntl.ioctl(fd, _TUNSETOWNER, owner.uid)


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
            if problem.errno == errno.EBUSY:
                raise Refusal(Code.IN_USE, f"{owner.interface} is attached to a running program") from None
            raise Refusal(Code.FAILED, f"{owner.interface}: {problem.strerror}") from None
        yield fd
    finally:
        os.close(fd)


def _world(ip: _Ip, *, routes: bool) -> World:
    try:
        links = parse_links(ip("-details", "-json", "address", "show"))
        return World(links, parse_routes(ip("-4", "-json", "route", "show", "table", "all")) if routes else ())
    except (ValueError, KeyError, TypeError) as problem:
        raise Refusal(Code.FAILED, f"cannot read the output of ip: {problem}") from None


def _uid_of(user: str | None) -> int | None:
    """The uid behind what `ip` shows as a tap's owner: a user's name, or a number that has none."""
    if user is None or user.isdecimal():
        return int(user) if user else None
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _ipv6() -> bool:
    return Path("/proc/self/net/if_inet6").exists()


@dataclass(frozen=True, slots=True)
class _Ip:
    """Runs `ip` for the holder of the lock, and hands the lock down to it.

    A lock belongs to the open file, not to a process (flock(2)). So if we are killed, the lock is free only once the
    command that we had started is done too, and the next helper does not see it take effect under its hands.
    """

    lock: int

    def __call__(self, *words: str) -> str:
        program = next((path for path in _IP if os.access(path, os.X_OK)), None)
        if program is None:
            raise Refusal(Code.FAILED, "ip is not installed (Debian: iproute2)")
        try:
            done = subprocess.run(
                [program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={},
                pass_fds=[self.lock],
                timeout=_IP_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as problem:
            raise Refusal(Code.FAILED, f"ip {' '.join(words)}: {problem}") from None
        if done.returncode != 0:
            message = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise Refusal(Code.FAILED, f"ip {' '.join(words)}: {message}")
        return done.stdout.decode("utf-8", "replace")


@contextmanager
def _locked(path: Path) -> Iterator[_Ip]:
    """Holds the host-wide lock (flock(2)), which the kernel lets go however we end."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)  # whatever our umask: users have to reach the socket in it
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise Refusal(Code.FAILED, f"{path}: {problem.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Refusal(Code.FAILED, f"{path} is not a private file of ours")
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield _Ip(fd)
    finally:
        os.close(fd)
