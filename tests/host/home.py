"""A user's view of banger: a folder of its own, the command, and what is left on the host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.host.images import SMALL

TIMEOUT = 300.0


@dataclass
class Home:
    """A fresh BANGER_HOME whose cache is shared, so that images are built once for all tests."""

    root: Path
    cache: Path
    environment: str
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "cache").exists():
            (self.root / "cache").symlink_to(self.cache)

    @property
    def file(self) -> Path:
        return self.root / "banger.yaml"

    @property
    def env(self) -> dict[str, str]:
        project = str(Path(__file__).parents[2])
        # Bytecode is kept, as it is for every installed program.
        dropped = "PYTHONDONTWRITEBYTECODE"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BANGER_") and key != dropped}
        return {**kept, "BANGER_HOME": str(self.root), "PYTHONPATH": project, **self.extra}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "reconciler", *words]

    def run(self, *words: str, check: bool = True, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Runs `banger WORDS` with the home's file."""
        done = subprocess.run(
            self.argv(*words),
            env=self.env,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, (
                f"banger {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    @property
    def said(self) -> Path:
        """What the last `start` wrote to stderr."""
        return self.root / "stderr"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts `banger WORDS` in a session of its own, to be killed."""
        with self.said.open("wb") as stderr:
            return subprocess.Popen(
                self.argv(*words),
                env=self.env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def write(self, vms: Mapping[str, Any], *, networks: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Writes the file: the shared images and kernel, and these VMs, small unless they say otherwise."""
        document: dict[str, Any] = {
            "apiVersion": "banger/v1",
            "name": self.environment,
            "defaults": {"memory": "256MiB", "disk": "1GiB"},
            "kernels": {"debian": {"debian": {"suite": "bookworm"}}},
            "images": {"base": {"debian": {"suite": "bookworm", "packages": []}, "kernel": "debian"}, "small": SMALL},
            "vms": dict(vms),
            **more,
        }
        if networks:
            document["networks"] = dict(networks)
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def items(self, command: str = "status") -> dict[str, dict[str, Any]]:
        """`vm/dev` → its JSON."""
        document = json.loads(self.run(command, "-o", "json").stdout)
        return {f"{item['kind']}/{item['name']}": item for item in document["items"]}

    def plan(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.run("plan", "-o", "json", *words).stdout))

    def planned(self, *words: str) -> list[str]:
        return [step["id"] for step in self.plan(*words)["steps"]]

    def exec(self, vm: str, *command: str) -> str:
        return self.run("exec", vm, "--", *command).stdout.strip()

    # What this home has on the host, read without banger.

    @property
    def install(self) -> str:
        import sqlite3

        database = self.root / "state" / "banger.db"
        if not database.exists():
            return "none"
        with sqlite3.connect(database) as connection:
            return str(connection.execute("SELECT value FROM meta WHERE key = 'install'").fetchone()[0])

    def vmms(self) -> dict[int, str]:
        """Pid → command line of the VMMs."""
        mark = f"banger.{self.install}."
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if "qemu-system" in words[0] and mark in " ".join(words) and state not in "ZX":
                    found[int(entry.name)] = " ".join(words)
        return found

    def links(self) -> dict[str, str]:
        """Interface → alias, of the links that are labelled as this home's."""
        listing = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
        mark = f"banger:{self.install}:"
        return {link["ifname"]: link["ifalias"] for link in listing if link.get("ifalias", "").startswith(mark)}

    def tables(self) -> list[tuple[str, str]]:
        """Family and name of the nft tables that are this home's, by their comment."""
        listing = subprocess.run(["nft", "-t", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return re.findall(rf'^table (\S+) (\S+) \{{\n\tcomment "banger:{self.install}:', listing, re.M)

    def helpers(self) -> list[int]:
        """Processes that work in this home or for it, VMMs aside."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    environment = (entry / "environ").read_bytes()
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if f"BANGER_HOME={self.root}\0".encode() in environment + b"\0" and b"qemu-system" not in command:
                    found.append(int(entry.name))
        return found

    def mounts(self) -> list[str]:
        return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.root) in line]

    def corpses(self) -> list[Path]:
        return [made for staging in (self.root / "state").rglob(".staging") for made in staging.iterdir()]

    def kill_vmms(self) -> None:
        for pid in self.vmms():
            os.kill(pid, signal.SIGKILL)
        while self.vmms():
            pass

    def destroy(self) -> None:
        """Ends everything, firmly: guests of a test have nothing to lose."""
        self.kill_vmms()
        if (self.root / "state" / "banger.db").exists():
            self.run("delete", self.environment, "--yes", check=False)
        for name in self.links():
            subprocess.run(["ip", "link", "del", name], check=False)
        for table in self.tables():
            subprocess.run(["nft", "delete", "table", *table], check=False)


def bare() -> Mapping[str, Any]:
    """A VM that is ready as soon as its VMM runs: for tests of what happens around it."""
    return {"image": "small", "network": "none", "ready": {"agent": False}}
