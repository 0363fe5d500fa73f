"""A host whose processes and links outlive the banger that made them, as real ones do, for tests that kill it.

What is beside banger's own files lies in memory that parent and child share: whatever a killed child had started is
there for the next one. Disks hold a line of text, and every one that a guest has had open is remembered.
"""

from __future__ import annotations

import mmap
import os
import pickle
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.daemon import drivers as daemon_drivers
from reconciler.drivers.guest import keys
from reconciler.drivers.vmm import disks
from reconciler.drivers.vmm import probe as vmm_probe
from reconciler.drivers.vmm.backend import Accelerator, Boot, Forward, StopOutcome
from reconciler.drivers.vmm.probe import Vmm
from reconciler.execute.boots import BootGate
from reconciler.execute.tools import Tools
from reconciler.lib.paths import Paths, VmPaths
from reconciler.lib.progress import Progress
from reconciler.store.inventory import Inventory
from reconciler.store.journal import Journal
from tests.fakes.backend import FakeBackend
from tests.fakes.helper import FakeHelper, Key
from tests.fakes.host import Host
from tests.fakes.killing import effect

_BYTES = 1 << 20


class _Ungated(BootGate):
    """A place to boot for everyone, and no thread that looks after it."""

    @contextmanager
    def boot(self, progress: Progress) -> Iterator[Callable[[Vmm], None]]:
        yield lambda vmm: None


class LastingBackend(FakeBackend):
    """Its tables are saved by `keep` after every change.

    `opened` has the tap that each VMM holds, with its number; `disks` what stood in every disk that a guest wrote to;
    `wrong` what must never happen.
    """

    def __init__(self, keep: Callable[[], None]) -> None:
        super().__init__()
        self.keep = keep
        self.born = 0
        self.opened: dict[str, tuple[str, int]] = {}
        self.disks: set[str] = set()
        self.wrong: list[str] = []
        self.tap_number: Callable[[str], int | None] = lambda name: None
        self.may_start: Callable[[Boot], str | None] = lambda boot: None

    def add(self, install: str, vm_id: str) -> Vmm:
        self.born += 1
        self.table[vm_id] = Vmm(pid=2**22 + self.born, start_time=1, vm_id=vm_id, install=install)
        return self.table[vm_id]

    def start(self, boot: Boot, accelerator: Accelerator) -> Vmm:
        if boot.vm_id in self.table:
            return super().start(boot, accelerator)
        with effect(self.keep):
            self._inspect(boot)
            self.disks |= {disk.path.read_text() for disk in boot.disks if not disk.readonly}
            return super().start(boot, accelerator)

    def stop(self, paths: VmPaths, vmm: Vmm, deadline: float, progress: Progress) -> StopOutcome:
        with effect(self.keep):
            return super().stop(paths, vmm, deadline, progress)

    def kill(self, vmm: Vmm) -> None:
        with effect(self.keep):
            super().kill(vmm)

    def forward(self, paths: VmPaths, wanted: frozenset[Forward]) -> None:
        with effect(self.keep):
            super().forward(paths, wanted)

    def signalled(self, vm_id: str) -> None:
        with effect(self.keep):
            self.table.pop(vm_id, None)

    def holds(self, tap: str) -> bool:
        """A VMM that had an older tap of the same name does not hold this one."""
        return any(self.opened.get(vm_id) == (tap, self.tap_number(tap)) for vm_id in self.table)

    def _inspect(self, boot: Boot) -> None:
        if any(self.boots[vm_id].label == boot.label for vm_id in self.table if vm_id in self.boots):
            self.wrong.append(f"{boot.label} was started twice")
        if problem := self.may_start(boot):
            self.wrong.append(problem)
        if boot.nic is not None and boot.nic.tap is not None:
            number = self.tap_number(boot.nic.tap)
            if number is None or self.holds(boot.nic.tap):
                self.wrong.append(f"{boot.label} was started on a tap that is not there, or in use")
            self.opened[boot.vm_id] = (boot.nic.tap, number or 0)


class LastingHelper(FakeHelper):
    """Likewise; `numbers` are the taps' interface indexes, by name."""

    def __init__(self, holds: Callable[[str], bool], keep: Callable[[], None]) -> None:
        super().__init__(holds)
        self.keep = keep
        self.numbers: dict[str, int] = {}
        self.made = 0

    def ensure_bridge(self, **fields: Any) -> str:
        with effect(self.keep):
            return super().ensure_bridge(**fields)

    def delete_bridge(self, **fields: Any) -> bool:
        with effect(self.keep):
            return super().delete_bridge(**fields)

    def ensure_rules(self, **fields: Any) -> bool:
        with effect(self.keep):
            return super().ensure_rules(**fields)

    def ensure_tap(self, **fields: Any) -> str:
        with effect(self.keep):
            there = set(self.taps)
            name = super().ensure_tap(**fields)
            if set(self.taps) != there:
                self.made += 1
                self.numbers[name] = self.made
            return name

    def delete_tap(self, **fields: Any) -> bool:
        with effect(self.keep):
            return super().delete_tap(**fields)

    def number(self, name: str) -> int | None:
        return self.numbers.get(name) if any(tap.name == name for tap in self.taps.values()) else None

    def lose_tap(self, key: Key) -> None:
        del self.taps[key]

    def lose_bridge(self, key: Key) -> None:
        """As `ip link delete` does: the taps stay, without a master."""
        bridge = self.bridges.pop(key)
        for tap, seen in self.taps.items():
            if seen.master == bridge.name:
                self.taps[tap] = replace(seen, master=None)


class LastingHost(Host):
    """`save` and `load` carry the world beside the files from process to process; `freeze` and `thaw` all of it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self._memory = mmap.mmap(-1, _BYTES)
        self.backend: LastingBackend = LastingBackend(self.save)
        self.helper: LastingHelper = LastingHelper(self.backend.holds, self.save)
        self.backend.tap_number = self.helper.number
        self._frozen = b""
        self._signals: dict[int, str] = {}
        for module, name, fake in (
            (vmm_probe, "find", self.backend.find),
            (vmm_probe, "pidfd", self._pidfd),
            (signal, "pidfd_send_signal", self._send),
            (disks, "create_ext4", _create_disk),
            (disks, "grow_ext4", lambda path, size: path.read_text() == ""),
            (keys, "run", _keygen),
        ):
            monkeypatch.setattr(module, name, fake)

    def save(self) -> None:
        backend, helper = self.backend, self.helper
        tables = pickle.dumps(
            (
                {n: v for n, v in vars(backend).items() if n in _BACKEND},
                {n: v for n, v in vars(helper).items() if n in _HELPER},
            )
        )
        self._memory[: len(tables)] = tables

    def load(self) -> None:
        ours, theirs = pickle.loads(self._memory[:])
        vars(self.backend).update(ours)
        vars(self.helper).update(theirs)

    def freeze(self) -> None:
        """Remembers everything as it is now, for `thaw`."""
        self.save()
        self._frozen = self._memory[:]
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._home, self._copy, dirs_exist_ok=True) if self._home.exists() else self._copy.mkdir()

    def thaw(self) -> None:
        self._memory[:] = self._frozen
        self.load()
        shutil.rmtree(self._home, ignore_errors=True)
        shutil.copytree(self._copy, self._home)

    def reboot(self) -> None:
        """A power cut: no process, no link and nothing below /run is left."""
        self.backend.power_cut()
        self.helper.bridges.clear()
        self.helper.taps.clear()
        self.helper.flush_rules()
        shutil.rmtree(self.paths.runtime, ignore_errors=True)
        self.save()

    @property
    def _home(self) -> Path:
        return self.paths.state.parent

    @property
    def _copy(self) -> Path:
        return self._home.with_name("frozen")

    def _tools(
        self, environment: str, paths: Paths, inventory: Inventory, journal: Journal, shared: daemon_drivers.Shared
    ) -> Tools:
        tools = super()._tools(environment, paths, inventory, journal, shared)
        return replace(tools, boots=_Ungated(self.clock, 1))

    def _pidfd(self, vmm: Vmm) -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        self._signals[fd] = vmm.vm_id
        return fd

    def _send(self, fd: int, number: int) -> None:
        self.backend.signalled(self._signals[fd])


_BACKEND = frozenset({"table", "boots", "starts", "stops", "kills", "born", "opened", "disks", "wrong"})
_HELPER = frozenset({"bridges", "taps", "rules", "generation", "calls", "numbers", "made"})


def _create_disk(path: Path, size: int, label: str) -> bool:
    if path.exists():
        return False
    path.write_text(f"{label} {secrets.token_hex(8)}")
    return True


def _keygen(argv: list[str | Path], **_: object) -> None:
    made = Path(argv[-1])
    made.write_text("private")
    made.with_name(f"{made.name}.pub").write_text("ssh-ed25519 AAAA banger")
