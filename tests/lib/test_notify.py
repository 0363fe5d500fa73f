"""What systemd hears: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.lib import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The receiving end, as systemd has it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@banger-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        end.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield end


def test_what_is_sent(manager: socket.socket) -> None:
    for send, expected in (
        (lambda: notify.ready("keeping /var/lib/banger"), b"READY=1\nSTATUS=keeping /var/lib/banger"),
        (notify.ready, b"READY=1"),
        (lambda: notify.status("3 VMs"), b"STATUS=3 VMs"),
        (lambda: notify.status("two\nlines\rREADY=1"), b"STATUS=two lines READY=1"),
        (notify.watchdog, b"WATCHDOG=1"),
        (notify.stopping, b"STOPPING=1"),
    ):
        assert send() is True
        assert manager.recv(4096) == expected


def test_a_reload_says_when_it_began(manager: socket.socket) -> None:
    assert notify.reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=") and second.partition("=")[2].isdecimal()


def test_an_empty_status_is_not_sent(manager: socket.socket) -> None:
    assert notify.status("") is False
    assert notify.watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234", "/nowhere/at/all", "/" + "x" * 300])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.ready("here") is False


def test_no_socket_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify.ready("here") is False


def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_interval() == 15
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval() == 15


@pytest.mark.parametrize(
    ("usec", "pid"), [("30000000", "1"), ("0", None), ("-5", None), ("soon", None), ("30000000", "me"), (None, None)]
)
def test_no_watchdog(usec: str | None, pid: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() is None
