"""A QEMU that is a dictionary behind a real QMP socket: memory, disks, link and forwards as `drivers.vmm.live` uses them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 1 << 20
Refused = tuple[str, str]
"""QMP's error class, and a description."""


class FakeMonitor:
    """One client at a time, as in QEMU.

    `asked` has every command with its arguments. A guest moves `step` bytes closer to the balloon's target each time
    that somebody looks, and says that `available` bytes are free; None: it has no driver for statistics. `grow` is
    what the guest does when a disk has become larger. `table` is what `info usernet` prints below its head; None: no
    user-mode network. Ports in `taken` belong to another program.
    """

    def __init__(self, path: Path) -> None:
        self.boot = self.actual = self.target = 512 * MIB
        self.balloon = True
        self.step = 64 * MIB
        self.available: int | None = 400 * MIB
        self.polling = 0
        self.drives: dict[str, tuple[Path, bool]] = {}
        self.sizes: dict[str, int] = {}
        self.grow: Callable[[Path, int], None] = lambda path, size: None
        self.card = True
        self.link = True
        self.forwards: dict[tuple[str, str, int], int] | None = {}
        self.taken: set[int] = set()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def add_disk(self, serial: str, path: Path, *, readonly: bool = False) -> None:
        self.drives[serial] = path, readonly
        self.sizes[serial] = path.stat().st_size

    def told(self, command: str) -> list[dict[str, Any]]:
        """The arguments of each call of one command."""
        return [arguments for name, arguments in self.asked if name == command]

    def said(self) -> list[str]:
        """The lines for the human monitor that change something."""
        lines = [str(arguments["command-line"]) for arguments in self.told("human-monitor-command")]
        return [line for line in lines if not line.startswith("info ")]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                try:
                    client.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\n')
                    for line in lines:
                        request = json.loads(line)
                        client.sendall(json.dumps(self._answer(request) | {"id": request["id"]}).encode() + b"\n")
                except (OSError, ValueError):
                    pass  # the client went, perhaps in the middle of a line

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        command, arguments = request["execute"], request.get("arguments", {})
        self.asked.append((command, arguments))
        method = getattr(self, "_" + command.replace("-", "_"), None)
        if method is None:
            return {"return": {}}
        given = method(**{name.replace("-", "_"): value for name, value in arguments.items()})
        if isinstance(given, tuple):
            return {"error": {"class": given[0], "desc": given[1]}}
        return {"return": given}

    def _query_balloon(self) -> dict[str, int] | Refused:
        if not self.balloon:
            return "DeviceNotActive", "No balloon device has been activated"
        self.actual += max(-self.step, min(self.step, self.target - self.actual))
        return {"actual": self.actual}

    def _query_memory_size_summary(self) -> dict[str, int]:
        return {"base-memory": self.boot, "plugged-memory": 0}

    def _balloon(self, value: int) -> dict[str, int]:
        self.target = min(value, self.boot)
        return {}

    def _qom_set(self, path: str, property: str, value: int) -> dict[str, int]:
        assert (path, property) == ("/machine/peripheral/balloon0", "guest-stats-polling-interval")
        self.polling = value
        return {}

    def _qom_get(self, path: str, property: str) -> object:
        if property == "serial":
            return path.rpartition("/")[2]
        assert (path, property) == ("/machine/peripheral/balloon0", "guest-stats")
        if not self.polling or self.available is None:
            return {"stats": {"stat-available-memory": (1 << 64) - 1}, "last-update": 0}
        return {"stats": {"stat-available-memory": self.available}, "last-update": 1 << 40}

    def _query_block(self) -> list[dict[str, Any]]:
        empty: dict[str, Any] = {"device": "cd", "type": "unknown", "locked": False}
        return [empty] + [
            {
                "device": f"drive-{serial}",
                "qdev": f"/machine/peripheral-anon/{serial}",
                "inserted": {"file": str(path), "ro": readonly, "image": {"virtual-size": self.sizes[serial]}},
            }
            for serial, (path, readonly) in self.drives.items()
        ]

    def _block_resize(self, device: str, size: int) -> dict[str, int]:
        serial = device.removeprefix("drive-")
        path, _ = self.drives[serial]
        os.truncate(path, size)
        self.sizes[serial] = size
        self.grow(path, size)
        return {}

    def _set_link(self, name: str, up: bool) -> dict[str, int] | Refused:
        if not self.card:
            return "DeviceNotFound", f"Device '{name}' not found"
        self.link = up
        return {}

    def _human_monitor_command(self, command_line: str) -> str:
        verb, _, rest = command_line.partition(" ")
        if command_line == "info usernet":
            return "" if self.forwards is None else self._usernet(self.forwards)
        assert self.forwards is not None
        _, _, rule = rest.partition(" ")
        listener, _, guest = rule.partition("-:")
        protocol, address, port = listener.split(":")
        key = protocol, address, int(port)
        if verb == "hostfwd_remove":
            return f"host forwarding rule for {rest} " + (
                "removed\r\n" if self.forwards.pop(key, None) else "not found\r\n"
            )
        assert verb == "hostfwd_add"
        if key in self.forwards or int(port) in self.taken:
            return f"Could not set up host forwarding rule '{rule}'\r\n"
        self.forwards[key] = int(guest)
        return ""

    @staticmethod
    def _usernet(forwards: dict[tuple[str, str, int], int]) -> str:
        head = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        return head + "".join(
            f"  {x.upper()}[HOST_FORWARD]  19 {'*' if a == '0.0.0.0' else a:>15} {p:5d}       10.0.2.15 {g:5d}     0     0\r\n"
            for (x, a, p), g in forwards.items()
        )
