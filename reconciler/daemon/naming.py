"""DNS of the VMs: a name server on each network's gateway and on loopback, as long as a controller runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from reconciler.drivers.network.connect import open_helper
from reconciler.helper.client import HelperClient
from reconciler.lib.errors import BangerError
from reconciler.lib.log import Log
from reconciler.lib.paths import Paths
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory

if TYPE_CHECKING:
    from reconciler.daemon.gateways import Gateways
    from reconciler.drivers.network.dns.server import Server

# ruff: noqa: PLC0415  # the library behind the name server is loaded in a thread of its own, while others start

PORT = 5354
"""On loopback, where 53 and 5353 are often somebody's."""
PORT_VARIABLE = "BANGER_DNS_PORT"

_RETRY_FIRST, _RETRY_LAST = 1.0, 60.0  # seconds
_STOP_SECONDS = 10.0


def loopback_port(env: Mapping[str, str]) -> int:
    """The port on loopback that the variable asks for; 0 for none. Raises BangerError."""
    text = env.get(PORT_VARIABLE, "") or str(PORT)
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        hint = f"a port from 1 to 65535 (without it {PORT}), or 0 for no DNS on loopback"
        raise BangerError(f"{PORT_VARIABLE} is {text!r}", hint=hint)
    return int(text)


class Naming:
    """Answers for the VMs of one state directory, in threads of its own.

    Parameters
    ----------
    port: on 127.0.0.1; 0 for none.
    connect: makes a connected client of the helper, for the thread that calls it.
    index_of: the interface index of a bridge, by its name; OSError if it is not there.
    """

    def __init__(
        self,
        paths: Paths,
        log: Log,
        *,
        port: int,
        connect: Callable[[], HelperClient] | None = None,
        index_of: Callable[[str], int] = socket.if_nametoindex,
    ) -> None:
        self._paths = paths
        self._log = log.bind(part="dns")
        self._port = port
        self._connect = connect or (lambda: open_helper(log=paths.state / "helper.log"))
        self._index_of = index_of
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="naming", daemon=True)

    def start(self) -> None:
        """Returns at once; what cannot be had is logged, tried again, and fails nobody."""
        self._wake.set()
        self._thread.start()

    def poke(self) -> None:
        """Networks or bridges may have changed. Cheap, from any thread. Records of VMs need no such call."""
        self._wake.set()

    def stop(self) -> None:
        """Closes every socket. May be repeated."""
        self._ended.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        try:
            self._serve()
        except Exception as problem:
            self._log.error(f"no DNS for the VMs until the controller is started again: {problem}")

    def _serve(self) -> None:
        from reconciler.daemon.gateways import Gateways
        from reconciler.daemon.zones import Zones
        from reconciler.drivers.network.dns.server import Server

        with ExitStack() as stack:
            # Two connections: one for each of the threads that read. Neither is the controller's, which may be writing.
            names, networks = (Database(self._paths.database, create=False) for _ in range(2))
            stack.callback(names.close)
            stack.callback(networks.close)
            server, inventory = Server(Zones(names).current, self._log.warning), Inventory(networks)
            gateways = Gateways(server, inventory.install, self._log, connect=self._connect, index_of=self._index_of)
            stack.callback(gateways.close)
            server.start()
            stack.callback(server.stop)
            self._open_loopback(server)
            self._follow(inventory, gateways)

    def _follow(self, inventory: Inventory, gateways: Gateways) -> None:
        """Looks whenever it is told to, and again where something failed."""
        delay, patience = _RETRY_FIRST, None
        while not self._ended.is_set():
            self._wake.wait(patience)
            self._wake.clear()
            if self._ended.is_set():
                break
            if self._look(inventory, gateways):
                delay, patience = _RETRY_FIRST, None
            else:
                delay, patience = min(_RETRY_LAST, delay * 2), delay

    def _look(self, inventory: Inventory, gateways: Gateways) -> bool:
        from reconciler.daemon.zones import networks_of

        try:
            recorded = networks_of(inventory)
        except BangerError as problem:
            self._log.warning(f"the networks cannot be read: {problem.cause}")
            return False
        return gateways.keep(
            {
                (environment, network.name): network
                for environment, networks in recorded.items()
                for network in networks.values()
                if network.dns
            }
        )

    def _open_loopback(self, server: Server) -> None:
        from reconciler.drivers.network.dns.server import LOOPBACK

        if not self._port:
            return
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_STREAM)
        try:
            # For connections of before that linger; it takes nothing from one who listens.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for channel in (udp, tcp):
                channel.bind(("127.0.0.1", self._port))
            server.open("loopback", udp, tcp, LOOPBACK, _nothing)
        except OSError as problem:
            udp.close()
            tcp.close()
            reason = f"no DNS on 127.0.0.1 port {self._port}: {problem.strerror}"
            self._log.warning(reason, hint=f"set {PORT_VARIABLE} to a free port")
            return
        self._log.info("answering", address="127.0.0.1", port=self._port)


def _nothing(entry: str, addresses: tuple[object, ...], seconds: int) -> None:
    """On loopback nobody is kept from anything."""
