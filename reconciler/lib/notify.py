"""What a service tells systemd of itself: sd_notify(3), sd_watchdog_enabled(3).

A datagram of assignments to the socket that NOTIFY_SOCKET names. Without systemd every function here does nothing:
a service that cannot be asked after is a service all the same.
"""

from __future__ import annotations

import os
import socket
import time

_SECONDS = 1.0
"""How long systemd may take to empty its queue; it does so at once, unless it hangs itself."""


def ready(status: str = "") -> bool:
    """Start-up is done, or a reload. `status` is one line for `systemctl status`."""
    return _send("READY=1", *_status(status))


def status(text: str) -> bool:
    """Replaces the line that `systemctl status` shows."""
    return _send(*_status(text))


def reloading() -> bool:
    """A reload begins; `ready` ends it. Type=notify-reload asks for the time of its beginning."""
    return _send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> bool:
    """The service ends of its own will or because it was asked to."""
    return _send("STOPPING=1")


def watchdog() -> bool:
    """The service is alive and gets on with its work."""
    return _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """How often `watchdog` is to be called, in seconds: half of what systemd waits. None if it does not wait."""
    try:
        wait = int(os.environ["WATCHDOG_USEC"])
        # The variables are inherited; a child is not the one who is asked after.
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return wait / 2e6 if wait > 0 and pid == os.getpid() else None


def _status(text: str) -> list[str]:
    # A line break would begin an assignment of its own.
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _send(*assignments: str) -> bool:
    """Whether systemd took the message. Raises nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not assignments or not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = f"\0{address[1:]}"  # the abstract namespace, unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_SECONDS)
            channel.sendto("\n".join(assignments).encode("utf-8", "replace"), address)
    except OSError:
        return False
    return True
