"""Real images and kernels, and what is left of a build that is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import reconciler
from reconciler.drivers.images.build import build
from reconciler.drivers.kernels.fetch import fetch
from reconciler.lib import run
from reconciler.lib.atomic import STAGING, corpses
from reconciler.lib.debian import KEYRING, sources
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.once import remove_tree
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import AptSource, Blob, DebianImage, DebianKernel, Image, Kernel

if TYPE_CHECKING:
    from tests.host.conftest import Artifacts

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds as root, and as a user that it makes"),
]

CHILD = """
import sys
from reconciler.lib.paths import Paths
from reconciler.model.artifacts import DebianImage, DebianKernel, Image, Kernel

class Talk:
    def update(self, fraction, message):
        print(message, flush=True)

paths = Paths.discover({"BANGER_HOME": sys.argv[2]})
if sys.argv[1] == "kernel":
    from reconciler.drivers.kernels.fetch import fetch
    fetch(Kernel(name="k", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64")), paths, Talk())
else:
    from reconciler.drivers.images.build import build
    build(Image(name="i", source=DebianImage(suite="bookworm", packages=()), kernel="k"), paths, Talk())
"""
USER_CHILD = """
import sys
from pathlib import Path
from reconciler.lib.bootstrap import Bootstrap, Variant, bootstrap
from reconciler.lib.once import remove_tree
from reconciler.lib.progress import Silent
from reconciler.lib.run import run

home = Path(sys.argv[1])
scratch = home / "scratch"
scratch.mkdir()
hook = f'cp -a "$1/etc/protocols" {home}; mkdir -p {home}/left/deep; chown -R 100:100 {home}/left'
wanted = Bootstrap(suite="bookworm", packages=("netbase",), variant=Variant.EXTRACT, hooks=(hook,))
bootstrap(wanted, scratch, Silent())
print((home / "left").stat().st_uid)
remove_tree(home / "left")
print((home / "left").exists(), (home / "protocols").stat().st_uid, sorted(p.name for p in scratch.iterdir()))
"""
CLOSED_TMP = 'mount -t tmpfs -o mode=755 none /tmp && exec "$@"'


def home_paths(home: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(home)})


def start(kind: str, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(reconciler.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, str(home)], stdout=subprocess.PIPE, text=True, env=environment
    )


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Asks again until the answer is yes, or the time is over."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def processes_of(home: Path) -> list[str]:
    """Command lines of live processes that have `home` among their words or in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                words = (entry / "cmdline").read_bytes()
                if str(home).encode() in words + (entry / "environ").read_bytes():
                    found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def listing(squashfs: Path) -> dict[str, list[str]]:
    """For each path of a squashfs its mode, owner and the rest, as `unsquashfs -lln` prints them."""
    out = subprocess.run(["unsquashfs", "-lln", squashfs], check=True, capture_output=True, text=True).stdout
    rows = {}
    for line in out.splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6:
            rows["/" + words[5].removeprefix("squashfs-root").lstrip("/").partition(" -> ")[0]] = words
    return rows


def content(squashfs: Path, path: str) -> bytes:
    return subprocess.run(["unsquashfs", "-cat", squashfs, path], check=True, capture_output=True).stdout


def test_an_image_is_generic(artifact_cache: Artifacts) -> None:
    squashfs = artifact_cache.image_paths.squashfs
    files = listing(squashfs)
    assert files["/"][:2] == ["drwxr-xr-x", "0/0"]
    assert files["/etc/shadow"][:2] == ["-rw-r-----", "0/42"]
    assert files["/usr/bin/passwd"][0] == "-rwsr-xr-x"
    assert content(squashfs, "etc/machine-id") == b""
    assert not [path for path in files if path.startswith(("/etc/ssh/ssh_host_", "/boot/", "/usr/lib/modules/"))]
    assert not {"/etc/hostname", "/etc/resolv.conf", "/etc/apt/apt.conf.d/99mmdebstrap"} & set(files)
    assert b"root:*:" in content(squashfs, "etc/shadow")
    assert b"\nInclude /etc/ssh/sshd_config.d/*.conf" in content(squashfs, "etc/ssh/sshd_config")
    assert content(squashfs, "etc/default/locale") == b"LANG=C.UTF-8\n"
    assert "/etc/systemd/system/multi-user.target.wants/ssh.service" in files
    assert "/etc/systemd/system/default.target.wants/e2scrub_reap.service" not in files
    assert b"signed-by" in content(squashfs, "etc/apt/sources.list")


def test_an_image_says_what_it_is(artifact_cache: Artifacts) -> None:
    paths = artifact_cache.image_paths
    manifest = json.loads(paths.manifest.read_text())
    assert (manifest["apiVersion"], manifest["kind"], manifest["id"]) == ("banger/v1", "image", artifact_cache.image.id)
    assert manifest["size"] == paths.squashfs.stat().st_size
    assert manifest["sha256"] == hashlib.sha256(paths.squashfs.read_bytes()).hexdigest()
    assert {"openssh-server", "systemd", "apt"} <= {package["name"] for package in manifest["packages"]}


def test_a_kernel_is_an_elf_with_its_modules(artifact_cache: Artifacts) -> None:
    paths = artifact_cache.kernel_paths
    manifest = json.loads(paths.manifest.read_text())
    assert paths.vmlinux.read_bytes()[:5] == b"\x7fELF\x02"
    assert f"/{manifest['release']}/modules.dep" in listing(paths.modules)
    early = sorted(path.name for path in paths.early_modules.iterdir())
    assert early == [f"{number:02}-{name}.ko" for number, name in enumerate(manifest["early"])]
    place = manifest["early"].index
    assert place("virtio_ring") < place("virtio") < place("virtio_mmio") and place("net_failover") < place("virtio_net")


def test_the_same_packages_make_the_same_bytes(artifact_cache: Artifacts, tmp_path: Path) -> None:
    paths = home_paths(tmp_path)
    build(artifact_cache.image, paths, Silent())
    again, first = (p.manifest for p in (paths.image(artifact_cache.image.id), artifact_cache.image_paths))
    again, first = json.loads(again.read_text()), json.loads(first.read_text())
    if again["packages"] != first["packages"]:
        pytest.skip("the archive has newer packages than the kept cache")
    assert again["sha256"] == first["sha256"]


def test_several_processes_fetch_once(tmp_path: Path) -> None:
    children = [start("kernel", tmp_path) for _ in range(3)]
    told = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum("downloading packages" in text for text in told) == 1
    assert list((home_paths(tmp_path).kernels / STAGING).glob("*")) == []


def test_killed_in_the_middle_only_a_corpse_stays(tmp_path: Path) -> None:
    child = start("image", tmp_path)
    assert child.stdout is not None
    assert any(line.strip() == "installing essential packages" for line in child.stdout)
    assert len(processes_of(tmp_path)) > 2
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert eventually(lambda: not processes_of(tmp_path)), processes_of(tmp_path)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    paths = home_paths(tmp_path)
    (corpse,) = corpses(paths.images)
    assert [entry.name for entry in paths.images.iterdir() if not entry.name.startswith(".")] == []
    remove_tree(corpse)
    assert corpses(paths.images) == []


def test_cancelled_nothing_stays(tmp_path: Path) -> None:
    class Cancelling:
        def update(self, fraction: float | None, message: str) -> None:
            if message == "installing essential packages":
                run.cancel_all()

    try:
        with pytest.raises(CancelledError):
            build(
                Image(name="i", source=DebianImage(suite="bookworm", packages=()), kernel="k"),
                home_paths(tmp_path),
                Cancelling(),
            )
    finally:
        run.reset_cancel()
    assert list((home_paths(tmp_path).images / STAGING).glob("*")) == []
    assert eventually(lambda: not processes_of(tmp_path))


@pytest.mark.parametrize("package", ["no-such-package", "no.such.package"])
def test_an_impossible_package_fails_before_anything_is_fetched(tmp_path: Path, package: str) -> None:
    told: list[str] = []

    class Talk:
        def update(self, fraction: float | None, message: str) -> None:
            told.append(message)

    image = Image(name="i", source=DebianImage(suite="bookworm", packages=(package,)), kernel="k")
    with pytest.raises(BangerError, match=f"Debian bookworm has no package {package}") as caught:
        build(image, home_paths(tmp_path), Talk())
    assert told == []
    assert caught.value.hint and caught.value.replay
    assert caught.value.error_class is ErrorClass.TERMINAL
    assert list((home_paths(tmp_path).images / STAGING).glob("*")) == []


def test_a_suite_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="has no suite potato-salad"):
        fetch(
            Kernel(name="k", source=DebianKernel(suite="potato-salad", package="linux-image-amd64")),
            home_paths(tmp_path),
            Silent(),
        )


def test_a_package_without_a_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="the package netbase brings no kernel"):
        fetch(
            Kernel(name="k", source=DebianKernel(suite="bookworm", package="netbase")), home_paths(tmp_path), Silent()
        )


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", tmp_path], check=True)
    try:
        with pytest.raises(BangerError, match=r"(?i)no space left"):
            build(
                Image(name="i", source=DebianImage(suite="bookworm", packages=()), kernel="k"),
                home_paths(tmp_path),
                Silent(),
            )
        assert list((home_paths(tmp_path).images / STAGING).glob("*")) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def normal_user() -> Iterator[pwd.struct_passwd]:
    name = f"bangertest{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", "--add-subids-for-system", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def test_a_normal_user_needs_no_root(normal_user: pwd.struct_passwd) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # pytest's own folders are closed to others
        base = Path(folder)
        base.chmod(0o755)
        shutil.copytree(Path(reconciler.__file__).parent / "lib", base / "reconciler/lib")
        (base / "reconciler/__init__.py").touch()
        home = base / "home"
        home.mkdir()
        os.chown(home, normal_user.pw_uid, normal_user.pw_gid)
        become = ["setpriv", f"--reuid={normal_user.pw_uid}", f"--regid={normal_user.pw_gid}", "--clear-groups", "--"]
        done = subprocess.run(
            # Nor a /tmp that is open to users: some hosts have none.
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                CLOSED_TMP,
                "sh",
                *become,
                "/usr/bin/python3",
                "-B",
                "-c",
                USER_CHILD,
                home,
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": folder, "HOME": str(home), "USER": normal_user.pw_name},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        owner, left = done.stdout.split("\n", 1)
        assert int(owner) != normal_user.pw_uid
        assert left == f"False {normal_user.pw_uid} []\n"


def test_further_sources_and_scripts_make_the_same_bytes_again(tmp_path: Path) -> None:
    """An archive besides, with a key of its own; scripts that have the rights to install, and no others."""
    archive = sources("bookworm")[0]
    keyring = Blob(url=KEYRING.as_uri(), sha256=hashlib.sha256(KEYRING.read_bytes()).hexdigest())
    script = (
        'echo "it\'s me" >/etc/who; id -u >>/etc/who; mkdir -m 1777 /var/tmp/mine; '
        "mount -t tmpfs none /mnt 2>/dev/null && echo mounted >>/etc/who; "
        "mknod /tmp/null c 1 3 2>/dev/null && echo made >>/etc/who; "
        "ls /proc/1/root/ >/dev/null 2>&1 && echo looked >>/etc/who; true"
    )
    source = DebianImage(
        suite="bookworm",
        mirror=archive.uri,
        sources=(AptSource(uri=archive.uri, suite="bookworm-updates", components=("main",), keyring=keyring),),
        run=(script, "apt-get update -q && test -e /etc/who"),
    )
    digests = []
    for home in (tmp_path / "a", tmp_path / "b"):
        image = Image(name="i", source=source, kernel="k")
        build(image, home_paths(home), Silent())
        squashfs = home_paths(home).image(image.id).squashfs
        digests.append(hashlib.sha256(squashfs.read_bytes()).hexdigest())
    assert content(squashfs, "etc/who") == b"it's me\n0\n"
    listed = content(squashfs, "etc/apt/sources.list").decode()
    assert "signed-by=/etc/apt/keyrings/banger-1.gpg" in listed and str(tmp_path) not in listed
    assert content(squashfs, "etc/apt/keyrings/banger-1.gpg") == KEYRING.read_bytes()
    assert digests[0] == digests[1]


def test_a_script_that_fails_ends_the_build(tmp_path: Path) -> None:
    source = DebianImage(suite="bookworm", run=("echo so far so good; no-such-program",))
    with pytest.raises(BangerError) as caught:
        build(Image(name="i", source=source, kernel="k"), home_paths(tmp_path), Silent())
    assert "no-such-program" in caught.value.cause
    assert list((home_paths(tmp_path).images / STAGING).glob("*")) == []
