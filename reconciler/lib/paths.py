"""Every path and socket that banger uses, in one place.

Three layouts (DESIGN section 9): `BANGER_HOME` puts everything below one folder; root without it uses
the system directories; everybody else the XDG base directories. A service has those that systemd gives it
(STATE_DIRECTORY and its like, systemd.exec(5)).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.lib import runtime
from reconciler.lib.errors import BangerError

HELPER_SOCKET = Path("/run/banger/helper.sock")
BUILDER_SOCKET = Path("/run/banger/builder.sock")
SERVICE_RUNTIME = Path(runtime.OF_SERVICE)
"""RuntimeDirectory= of the system's controller, which runs as a user of its own."""
SYSTEM_SPEC = Path("/etc/banger/banger.yaml")


@dataclass(frozen=True, slots=True)
class Paths:
    """The four roots, and what lies below each."""

    state: Path
    cache: Path
    runtime: Path
    config: Path

    @classmethod
    def discover(cls, env: Mapping[str, str] | None = None, uid: int | None = None) -> Paths:
        """The layout of this user. `env` and `uid` default to the process's own."""
        env = os.environ if env is None else env
        uid = os.geteuid() if uid is None else uid
        if home := env.get("BANGER_HOME"):
            base = Path(home).absolute()
            return cls(base / "state", base / "cache", base / "run", base / "config")
        fallback = cls._of_root() if uid == 0 else cls._of_user(env, uid)

        def given(variable: str, other: Path) -> Path:
            first = env.get(variable, "").split(":")[0]
            return Path(first) if first.startswith("/") else other

        return cls(
            given("STATE_DIRECTORY", fallback.state),
            given("CACHE_DIRECTORY", fallback.cache),
            given("RUNTIME_DIRECTORY", fallback.runtime),
            given("CONFIGURATION_DIRECTORY", fallback.config),
        )

    @classmethod
    def _of_root(cls) -> Paths:
        state = Path("/var/lib/banger")
        return cls(state, Path("/var/cache/banger"), Path(runtime.of_root()), Path("/etc/banger"))

    @classmethod
    def _of_user(cls, env: Mapping[str, str], uid: int) -> Paths:
        user = Path(env.get("HOME") or f"/home/{uid}")

        def xdg(variable: str, fallback: Path) -> Path:
            # The XDG base directory specification: a relative value is to be ignored.
            value = env.get(variable, "")
            return Path(value) / "banger" if value.startswith("/") else fallback / "banger"

        return cls(
            xdg("XDG_STATE_HOME", user / ".local/state"),
            xdg("XDG_CACHE_HOME", user / ".cache"),
            Path(runtime.folder(env, uid)),
            xdg("XDG_CONFIG_HOME", user / ".config"),
        )

    def require_own(self) -> None:
        """Raises BangerError if this is root and the state is the system service's, which goes by its own uid."""
        holder = runtime.owner(self.state)
        if os.geteuid() == 0 and self.runtime == SERVICE_RUNTIME and holder not in (0, None):
            raise BangerError(
                f"{self.state} belongs to the service banger-controller, which does not run",
                hint="systemctl start banger-controller; or set BANGER_HOME to a folder for VMs of root's own",
            )

    @property
    def database(self) -> Path:
        return self.state / "banger.db"

    @property
    def writer_lock(self) -> Path:
        return self.state / "lock"

    @property
    def controller_lock(self) -> Path:
        """Held by the controller, which writes its process id into it."""
        return self.state / "controller.lock"

    @property
    def boots(self) -> Path:
        """Locks by which processes take turns in booting guests."""
        return self.runtime / "boots"

    @property
    def consoles(self) -> Path:
        """Held by the process that keeps the VMs' console logs small."""
        return self.runtime / "consoles.lock"

    @property
    def api_socket(self) -> Path:
        """Where the controller listens, while there is one."""
        return self.runtime / "controller.sock"

    @property
    def client_key(self) -> Path:
        """The private half of the key that banger uses to enter guests."""
        return self.state / "ssh" / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        """What `banger ssh-config --install` has OpenSSH read; there only while it is installed."""
        return self.state / "ssh" / "config"

    @property
    def secrets_key(self) -> Path:
        """Under which hashes of secrets are made, which tell whether one has changed; mode 0600."""
        return self.state / "secrets.key"

    @property
    def vms(self) -> Path:
        return self.state / "vms"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def committed(self) -> Path:
        """Images that users made of VMs: theirs, and so not in the cache."""
        return self.state / "committed"

    @property
    def trash(self) -> Path:
        return self.state / "trash"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def kernels(self) -> Path:
        return self.cache / "kernels"

    @property
    def initramfs(self) -> Path:
        return self.cache / "initramfs"

    @property
    def templates(self) -> Path:
        return self.cache / "templates"

    @property
    def tools(self) -> Path:
        return self.cache / "tools"

    @property
    def oci(self) -> Path:
        """What came out of registries; nothing that exists depends on it."""
        return self.cache / "oci"

    @property
    def blobs(self) -> Path:
        """skopeo's shared blob folder is the one above: `<algorithm>/<hex>` below it (OCI image layout)."""
        return self.oci / "blobs" / "sha256"

    @property
    def resolutions(self) -> Path:
        """What tags were found to mean."""
        return self.oci / "refs"

    @property
    def catalogs(self) -> Path:
        """The indexes of images and kernels that were fetched, by what was asked for."""
        return self.cache / "catalogs"

    @property
    def accelerator(self) -> Path:
        """What booting a guest with each accelerator showed; true for one boot of the host."""
        return self.cache / "accelerator.json"

    def vm(self, environment: str, name: str) -> VmPaths:
        return VmPaths(self.vms.joinpath(environment, name), self.runtime.joinpath("vms", environment, name))

    def volume(self, environment: str, vm: str, volume: str) -> Path:
        return self.volumes / environment / vm / f"{volume}.ext4"

    def trash_entry(self, entry: str) -> Path:
        return self.trash / entry

    def image(self, identity: str) -> ImagePaths:
        return ImagePaths(self.images / identity)

    def kernel(self, identity: str) -> KernelPaths:
        return KernelPaths(self.kernels / identity)

    def tools_disk(self, identity: str) -> ToolsPaths:
        return ToolsPaths(self.tools / identity)


@dataclass(frozen=True, slots=True)
class VmPaths:
    """What one VM keeps: `root` lasts and goes to the trash with it, `run` is gone after a reboot."""

    root: Path
    run: Path

    @property
    def overlay(self) -> Path:
        return self.root / "overlay.ext4"

    @property
    def config_disk(self) -> Path:
        """Made anew before each start; holds the guest's private host key, so mode 0600."""
        return self.root / "config.tar"

    @property
    def host_key(self) -> Path:
        return self.root / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def console_log(self) -> Path:
        return self.root / "console.log"

    @property
    def workspace(self) -> Path:
        """Where the workspace was shipped to in the guest, once it was; goes with the disk that has it."""
        return self.root / "workspace"

    @property
    def provision_log(self) -> Path:
        """What the steps of its provisioning said."""
        return self.root / "provision.log"

    @property
    def vmm_log(self) -> Path:
        return self.root / "vmm.log"

    @property
    def pidfile(self) -> Path:
        return self.run / "pid"

    @property
    def qmp(self) -> Path:
        return self.run / "qmp.sock"

    @property
    def ssh_shared(self) -> Path:
        """Where connections to the guest listen that several ssh commands share: the beginning of their paths."""
        return self.run / "ssh"

    @property
    def ssh_entry(self) -> Path:
        """How the shared connection of `banger exec` is joined: there only while it may stand (`cli.warm`)."""
        return self.run / "ssh.entry"

    @property
    def serial(self) -> Path:
        return self.run / "serial.sock"

    @property
    def serial_lock(self) -> Path:
        """Held by who talks on the serial line: it has room for one."""
        return self.run / "serial.lock"

    @property
    def agent(self) -> Path:
        """The name by which the VMM knows the pipes to the guest's agent; it adds `.in` and `.out` itself."""
        return self.run / "agent"

    @property
    def agent_in(self) -> Path:
        """A named pipe: what is written there, the guest's agent reads."""
        return self.run / "agent.in"

    @property
    def agent_out(self) -> Path:
        return self.run / "agent.out"

    @property
    def agent_lock(self) -> Path:
        """Held by who has a request to the agent on its way."""
        return self.run / "agent.lock"


@dataclass(frozen=True, slots=True)
class ImagePaths:
    """One published image: the directory is complete or absent."""

    root: Path

    @property
    def squashfs(self) -> Path:
        return self.root / "rootfs.squashfs"

    @property
    def manifest(self) -> Path:
        return self.root / "image.json"


@dataclass(frozen=True, slots=True)
class KernelPaths:
    """One published kernel: the directory is complete or absent."""

    root: Path

    @property
    def vmlinux(self) -> Path:
        return self.root / "vmlinux"

    @property
    def modules(self) -> Path:
        """A squashfs with the kernel's `lib/modules/<release>` tree at its top, for the guest's modprobe."""
        return self.root / "modules.squashfs"

    @property
    def early_modules(self) -> Path:
        """A folder of the modules that the initramfs loads, named `00-name.ko` in load order."""
        return self.root / "early"

    @property
    def manifest(self) -> Path:
        return self.root / "kernel.json"


@dataclass(frozen=True, slots=True)
class ToolsPaths:
    """One published disk of guest tools: the directory is complete or absent."""

    root: Path

    @property
    def squashfs(self) -> Path:
        return self.root / "tools.squashfs"

    @property
    def manifest(self) -> Path:
        return self.root / "tools.json"
