"""How a real guest's end is told from what it leaves behind: the words of a real kernel, the files of a real QEMU."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
from collections.abc import Callable

import pytest

from reconciler.lib.clock import SystemClock
from reconciler.lib.paths import Paths
from reconciler.model.observed import Ended, ObservedVm
from reconciler.model.observed_links import Filter
from reconciler.model.vm import RestartPolicy
from reconciler.observe.snapshot import observe
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory
from tests.host.home import Home

pytestmark = pytest.mark.host
PATIENCE_MS = 120_000


def look(home: Home) -> ObservedVm:
    paths = Paths.discover({"BANGER_HOME": str(home.root)})
    database = Database(paths.database, create=False)
    try:
        return observe(home.environment, Inventory(database), paths, lambda install: Filter()).vms["dev"]
    finally:
        database.close()


def until_gone(home: Home, act: Callable[[int], object]) -> None:
    (pid,) = home.vmms()
    fd = os.pidfd_open(pid)
    try:
        act(pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE_MS), "the VMM still runs"
    finally:
        os.close(fd)


def guest(home: Home, command: str) -> Callable[[int], object]:
    # The guest goes down under the connection, so that its exit status says nothing.
    return lambda pid: home.run("exec", "dev", "--", "sh", "-c", command, check=False)


def test_each_way_to_end_is_told_from_the_others(home: Home) -> None:
    home.write({"dev": {"image": "small", "restart": "on-failure"}})
    home.run("apply")
    assert look(home).spec.restart is RestartPolicy.ON_FAILURE
    now = SystemClock().now()
    running = look(home)
    assert running.uptime is not None and running.started_at is not None
    assert abs(running.uptime - (now - running.started_at)) < 10

    until_gone(home, guest(home, "poweroff"))
    assert look(home).ended is Ended.POWEROFF

    home.run("apply")
    until_gone(home, guest(home, "reboot"))
    assert look(home).ended is Ended.REBOOT

    home.run("apply")
    until_gone(home, lambda pid: os.kill(pid, signal.SIGKILL))
    assert look(home).ended is Ended.FAILED

    home.run("apply", "--no-wait")
    until_gone(home, lambda pid: os.kill(pid, signal.SIGTERM))
    assert look(home).ended in (Ended.FAILED, None), "QEMU ended in order, and the guest had no say"

    home.run("apply")
    until_gone(home, guest(home, "(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &"))
    assert look(home).ended is Ended.FAILED

    home.run("apply")
    home.run("vm", "stop", "dev")
    stopped = look(home)
    assert (stopped.ended, stopped.halted) == (None, "stopped by hand")
    with sqlite3.connect(home.root / "state" / "banger.db") as connection:
        told = [row[0] for row in connection.execute("SELECT reason FROM events WHERE object = 'vm/dev' ORDER BY id")]
    assert told.count("Started") == 6 and told[-1] == "Stopped"
