"""Images made from Debian packages: mmdebstrap's tar stream straight into a squashfs.

The result is generic. It has no kernel, no host keys, no machine id, no host name and no resolver: the VM's
initramfs brings its own before init starts. It is uncompressed, so that no guest spends its CPU on unpacking,
and byte for byte the same when the same packages are installed again.

Manual pages, documentation and message catalogues stay, a tenth of the size: a folder that dpkg was told to leave
out would be missing from every package that somebody installs in the guest later on.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

from reconciler.lib import builder
from reconciler.lib.bootstrap import Bootstrap, Variant, bootstrap
from reconciler.lib.once import once
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress
from reconciler.lib.run import require, run
from reconciler.model.codec import to_json
from reconciler.model.desired import IMAGE_RECIPE, Image

BASE_PACKAGES = (
    "dbus",
    "e2fsprogs",  # resize2fs and fsck of overlays and volumes
    "iproute2",
    "kmod",  # modprobe: the kernel's modules are mounted at boot
    "netbase",  # /etc/services, /etc/protocols, /etc/hosts
    "openssh-server",
    "procps",  # ps, and sysctl.d
    "systemd",
    "systemd-sysv",
    "udev",
)

_HOOKS = (
    # Who the machine is, the VM's initramfs says. An empty machine-id is "not yet known" (machine-id(5)).
    'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"',
    # How this host reaches its mirrors (a proxy on its loopback, say) is wrong inside of a guest.
    'rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"',
    'echo \'LANG=C.UTF-8\' >"$1/etc/default/locale"; ln -sf default/locale "$1/etc/locale.conf"',
    # Scrubbing of ext4 on LVM, which our guests do not have; the slowest unit of their boot.
    'chroot "$1" systemctl --quiet disable e2scrub_reap.service e2scrub_all.timer',
    # Everything in /etc and /var is as new as /usr: systemd-update-done.service(8) keeps hwdb, ldconfig and the
    # journal's catalogue from being made again at every VM's first boot.
    'touch -r "$1/usr" "$1/etc/.updated" "$1/var/.updated"',
    # Logs of the making, with its times.
    'rm -rf "$1"/var/log/*.log "$1"/var/log/journal/* "$1"/var/cache/ldconfig/aux-cache "$1"/var/lib/systemd/random-seed',
)

# sqfstar(1) takes the root folder not from the tar but from its options, else it is mode 0777 and its caller's.
# -mem bounds its queues, by default a quarter of the host's memory.
_SQFSTAR = (
    *("sqfstar", "-noI", "-noD", "-noF", "-noX", "-root-mode", "755", "-root-uid", "0", "-root-gid", "0"),
    *("-quiet", "-no-progress", "-exit-on-error", "-mem", "512M"),
)


def build(image: Image, paths: Paths, progress: Progress) -> None:
    """Builds an image and publishes it at `paths.image(image.id)`, unless it is there.

    Parameters
    ----------
    progress: gets the fraction of the whole work.

    Raises BangerError: retryable if the mirror did not answer, else terminal.
    """
    target = paths.image(image.id).root
    if (elsewhere := builder.delegate()) and not target.is_dir():
        builder.ask(elsewhere, "image", to_json(image), progress)
    else:
        once(target, progress, lambda folder, scratch: _build(image, folder, scratch, progress))


def _build(image: Image, folder: Path, scratch: Path, progress: Progress) -> None:
    require("sqfstar", "squashfs-tools")
    target = ImagePaths(folder)
    packages = tuple(sorted({*BASE_PACKAGES, *image.packages}))
    wanted = Bootstrap(suite=image.suite, packages=packages, variant=Variant.MINBASE, hooks=_HOOKS)
    bootstrap(wanted, scratch, progress, into=[[*_SQFSTAR, target.squashfs]])
    progress.update(0.97, "recording what was built")
    target.squashfs.chmod(0o644)
    target.manifest.write_text(json.dumps(_manifest(image, target.squashfs), indent=2) + "\n")


def _manifest(image: Image, squashfs: Path) -> dict[str, object]:
    # Read from the result, not from the way to it.
    status = run(["unsquashfs", "-cat", squashfs, "var/lib/dpkg/status"]).stdout.decode()
    with squashfs.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "apiVersion": "banger/v1",
        "kind": "image",
        "id": image.id,
        "inputs": {"recipe": IMAGE_RECIPE, "suite": image.suite, "packages": list(image.packages)},
        "sha256": digest,
        "size": squashfs.stat().st_size,
        "packages": installed_packages(status),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def installed_packages(status: str) -> list[dict[str, str]]:
    """Name and version of what a dpkg status file (dpkg-query(1), deb-control(5)) has as installed, by name."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith((" ", "\t"))
        )
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            found.append({"name": fields["Package"], "version": fields["Version"]})
    return sorted(found, key=lambda package: package["name"])
