"""Images made from Debian packages: mmdebstrap's tar stream straight into a squashfs.

The result is generic. It has no kernel, no host keys, no machine id, no host name and no resolver: the VM's
initramfs brings its own before init starts. It is uncompressed, so that no guest spends its CPU on unpacking,
and byte for byte the same when the same packages are installed again.

Manual pages, documentation and message catalogues stay, a tenth of the size: a folder that dpkg was told to leave
out would be missing from every package that somebody installs in the guest later on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from reconciler.drivers.images.packing import Workshop
from reconciler.drivers.images.squashfs import packing
from reconciler.lib.bootstrap import Bootstrap, Variant, bootstrap
from reconciler.lib.debian import KEYRING, Source
from reconciler.lib.download import download
from reconciler.lib.paths import ImagePaths
from reconciler.lib.progress import Progress, Share
from reconciler.lib.run import run
from reconciler.lib.units import MIB
from reconciler.model.artifacts import IMAGE_RECIPE, DebianImage
from reconciler.model.codec import to_json

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


# What scripts need to install things. Not: to make devices, mount, leave a chroot, look at or change what is the host's.
_RIGHTS = "-all," + ",".join(
    f"+{right}"
    for right in ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "setfcap")
)
_MAX_KEYRING = MIB


def make(
    source: DebianImage, target: ImagePaths, scratch: Path, progress: Progress, _workshop: Workshop
) -> dict[str, object]:
    """Makes the squashfs of `target`. Returns what its manifest is to say of it besides.

    Raises BangerError: retryable if the mirror did not answer, else terminal.
    """
    packages = tuple(sorted({*BASE_PACKAGES, *source.packages}))
    more = tuple(_further(source, scratch, progress))
    wanted = Bootstrap(
        suite=source.suite,
        packages=packages,
        variant=Variant.MINBASE,
        hooks=(*map(_own_key, more), *map(_step, source.run), *_HOOKS),
        sources=(Source(source.mirror, source.suite, ("main",)),) if source.mirror else (),
        more=more,
    )
    bootstrap(wanted, scratch, progress, into=[packing(target.squashfs)])
    # Read from the result, not from the way to it.
    status = run(["unsquashfs", "-cat", target.squashfs, "var/lib/dpkg/status"]).stdout.decode()
    return {
        "inputs": {"recipe": IMAGE_RECIPE, **to_json(source)},
        "packages": installed_packages(status),
    }


def _further(source: DebianImage, scratch: Path, progress: Progress) -> Iterator[Source]:
    """The further sources, with their keys in files."""
    for number, extra in enumerate(source.sources, 1):
        raw = scratch / f"key-{number}"
        if extra.keyring is not None:
            download(extra.keyring.url, extra.keyring.sha256, raw, Share(progress, 0.0), limit=_MAX_KEYRING)
        elif extra.key is not None:
            raw.write_text(extra.key)
        else:
            yield Source(extra.uri, extra.suite, extra.components)
            continue
        # apt tells the two formats apart by the name only (sources.list(5), "Signed-By").
        armoured = b"-----BEGIN PGP PUBLIC KEY BLOCK-----" in raw.read_bytes()[:4096]
        keyring = raw.with_name(f"banger-{number}.{'asc' if armoured else 'gpg'}")
        raw.rename(keyring)
        keyring.chmod(0o644)
        yield Source(extra.uri, extra.suite, extra.components, keyring)


def _own_key(source: Source) -> str:
    """The hook that gives the image the key of a further source, and says in its lists where that is now."""
    if source.keyring == KEYRING:
        return ":"
    place = f"/etc/apt/keyrings/{source.keyring.name}"
    old = re.sub(r"([][\\.*^$|])", r"\\\1", str(source.keyring))
    return (
        f'install -D -m 0644 {shlex.quote(str(source.keyring))} "$1{place}"; '
        f'sed -i {shlex.quote(f"s|signed-by={old}|signed-by={place}|")} "$1/etc/apt/sources.list"'
    )


def _step(script: str) -> str:
    """The hook that runs a script in the new root: by its own shell, with its own files, and with no rights over ours."""
    return f'chroot "$1" setpriv --bounding-set={_RIGHTS} --inh-caps=-all -- sh -e -c {shlex.quote(script)} >&2'


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
