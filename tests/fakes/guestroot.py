"""A folder that takes a guest's place: nothing but busybox, its machine id and an /etc, entered by chroot(1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.drivers.guest import bundle, files
from reconciler.drivers.guest.sources import Entry
from reconciler.lib.run import Completed, which

MACHINE = "0123456789abcdef" * 2
CHROOT = ["chroot"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]


class Root:
    """A guest's root: nothing but busybox, its machine id and an /etc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("run/banger/etc", "etc", "root", "tmp", "dev"):
            (folder / name).mkdir(parents=True)
        busybox = which("busybox")
        assert busybox is not None
        shutil.copy(busybox, folder / "run/banger/busybox")
        (folder / "run" / bundle.SCRIPT).write_text(bundle.script())
        (folder / "run/banger/etc/machine-id").write_text(f"{MACHINE}\n")
        (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (folder / "etc/group").write_text("root:x:0:\n")

    @property
    def state(self) -> Path:
        return self.folder / "var/lib/banger" / MACHINE

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def run(self, command: Sequence[str], *, input: bytes = b"", timeout: float = 60) -> Completed:
        done = subprocess.run(
            [*CHROOT, self.folder, *command], input=input, capture_output=True, timeout=timeout, check=False
        )
        return Completed((), done.returncode, done.stdout, done.stderr)

    def write(self, *entries: Entry) -> tuple[str, ...]:
        return files.write(self, entries)

    def tree(self) -> list[str]:
        """What is there beside what a guest begins with, and banger's memory."""
        own = {
            "run",
            "tmp",
            "root",
            "dev",
            "dev/null",
            "tmp/n",
            "etc",
            "etc/passwd",
            "etc/group",
            "var",
            "var/lib",
            "var/lib/banger",
        }
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return sorted(name for name in found - own if not name.startswith(("run/", "var/lib/banger/")))


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path) -> Root:
    made = Root(tmp_path / "root")
    if made.run(["/run/banger/busybox", "true"]).returncode != 0:
        pytest.skip("this user can change the root neither as root nor in a namespace")
    return made
