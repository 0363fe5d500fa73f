"""Images from a real registry, from `banger apply` to a VM that runs one; and what a kill or a full disk leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import reconciler
from reconciler.lib.atomic import corpses
from reconciler.lib.once import remove_tree
from reconciler.lib.paths import Paths
from tests.fakes.host import free_port
from tests.fakes.images import Handler, image, serving
from tests.host.conftest import Artifacts
from tests.host.home import Home
from tests.host.test_build import eventually, processes_of

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="boots a VM, and fills a disk"),
    pytest.mark.skipif(
        not (shutil.which("skopeo") and shutil.which("docker-registry") and shutil.which("umoci")),
        reason="needs skopeo, docker-registry and umoci",
    ),
]

CHILD = """
import sys
from reconciler.drivers.images.build import build
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.artifacts import Image, OciImage

class Talk:
    def update(self, fraction, message):
        print(message, flush=True)

source = OciImage(ref=sys.argv[2], tls_verify=False)
try:
    build(Image(name="i", source=source, kernel="k"), Paths.discover({"BANGER_HOME": sys.argv[1]}), Talk())
except BangerError as problem:
    print(problem.error_class, problem.cause, flush=True)
    sys.exit(1)
"""


@dataclass(frozen=True)
class Debians:
    """Debian's docker-registry on the loopback."""

    host: str
    folder: Path

    def push(self, layout: Path, tag: str, name: str, *options: str) -> str:
        """Pushes an image of an OCI layout, and returns its reference."""
        reference = f"{self.host}/{name}"
        words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options]
        subprocess.run([*words, f"oci:{layout}:{tag}", f"docker://{reference}"], check=True)
        return reference


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debians]:
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        assert eventually(lambda: b"listening on" in (folder / "log").read_bytes())
        yield Debians(address, folder)
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout by umoci: `many`, which has 60 layers."""
    folder = tmp_path_factory.mktemp("layout")
    place, bundle = folder / "images", folder / "bundle"

    def umoci(*words: str | Path) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True)

    umoci("init", "--layout", place)
    umoci("new", "--image", f"{place}:many")
    umoci("unpack", "--image", f"{place}:many", bundle)
    rootfs = bundle / "rootfs"
    for number in range(60):
        (rootfs / f"layer-{number}").write_text(str(number))
        (rootfs / f"layer-{number - 2}").unlink(missing_ok=True)
        umoci("repack", "--refresh-bundle", "--image", f"{place}:many", bundle)
    umoci("config", "--image", f"{place}:many", "--config.entrypoint", "/init", "--config.env", "A=b")
    return place


def images(**more: Any) -> dict[str, Any]:
    return {name: {"kernel": "debian", **fields} for name, fields in more.items()}


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_apply_pulls_and_a_second_one_does_nothing(home: Home, registry: Debians, layout: Path, form: str) -> None:
    reference = registry.push(layout, "many", f"test/{form}:1", "--format", form)
    home.write({}, images=images(many={"oci": {"ref": reference, "tlsVerify": False}}))
    assert "build image/many" in home.planned()
    home.run("apply")
    assert home.planned() == []
    status = home.items()["image/many"]
    assert status["ready"]
    paths = Paths.discover({"BANGER_HOME": str(home.root)})
    listed = subprocess.run(
        ["unsquashfs", "-ls", "-dest", "", paths.image(status["id"]).squashfs],
        check=True,
        capture_output=True,
        text=True,
    )
    assert [line for line in listed.stdout.split() if "layer" in line] == ["/layer-58", "/layer-59"]


def test_a_vm_runs_an_image_of_a_registry_and_a_moved_tag_is_told(
    home: Home, registry: Debians, artifact_cache: Artifacts, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    layer = subprocess.run(["sqfs2tar", artifact_cache.image_paths.squashfs], check=True, capture_output=True).stdout
    reference = registry.push(_layout(layout, layer, b"one"), "made", "debian:1")
    home.write(
        {"dev": {"image": "deb"}},
        images=images(deb={"oci": {"ref": reference, "tlsVerify": False}, "pull": "always"}),
    )
    home.run("apply")
    assert home.exec("dev", "cat", "/marker") == "one"
    assert home.planned() == []
    registry.push(_layout(tmp_path / "other", layer, b"two"), "made", "debian:1")
    plan = home.plan()
    (held,) = plan["held"]
    assert held["object"] == "vm/dev" and held["reason"].count("@sha256:") == 2 and "recreate" in held["reason"]
    assert home.exec("dev", "cat", "/marker") == "one"


def test_killed_in_the_middle_of_a_pull_only_a_corpse_stays(tmp_path: Path) -> None:
    reached = threading.Event()

    def stall(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        reached.set()
        handler.registry.closing.wait(60)

    with serving() as server:
        reference = server.push("a/b", "1", image({"big": os.urandom(4 << 20)}))
        server.faults["/blobs/"] = stall
        _killed(tmp_path, reference, lambda child: reached.wait(60))
        server.faults.clear()
        _succeeds(tmp_path, reference)


def test_killed_in_the_middle_of_flattening_only_a_corpse_stays(tmp_path: Path) -> None:
    with serving() as server:
        reference = server.push("a/b", "1", image({f"{n}": os.urandom(1 << 20) for n in range(40)}))

        def flattening(child: subprocess.Popen[str]) -> bool:
            assert child.stdout is not None
            return any(line.startswith("flattening") for line in child.stdout)

        _killed(tmp_path, reference, flattening)
        _succeeds(tmp_path, reference)


@pytest.mark.parametrize("megabytes", [6, 11], ids=["for the layers", "for what they make"])
def test_a_full_disk_is_told_and_with_room_the_retry_succeeds(tmp_path: Path, megabytes: int) -> None:
    with _disk(tmp_path / "cache", megabytes), serving() as server:
        reference = server.push("a/b", "1", image({"big": os.urandom(8 << 20)}))
        child = _start(tmp_path, reference)
        said = child.communicate(timeout=60)[0]
        assert child.returncode == 1
        assert "no space left" in said or "left" in said.splitlines()[-1], said
        paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
        assert corpses(paths.images) == [] and not paths.blobs.exists()
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path / "cache"], check=True)
        _succeeds(tmp_path, reference)


def _layout(place: Path, layer: bytes, marker: bytes) -> Path:
    """An OCI layout of a Debian root file system and a marker on top, by hand: as fast as the disk."""
    import json

    from tests.fakes.images import OCI, digest, tar

    layers = [layer, tar({"marker": marker + b"\n"})]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        }
    ).encode()

    def described(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": f"{OCI}.{kind}", "digest": digest(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": described("config.v1+json", config),
            "layers": [described("layer.v1.tar", data) for data in layers],
        }
    ).encode()
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (*layers, config, manifest):
        (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {**described("manifest.v1+json", manifest), "annotations": {"org.opencontainers.image.ref.name": "made"}}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return place


def _start(home: Path, reference: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(reconciler.__file__).parents[1])}
    words = [sys.executable, "-c", CHILD, str(home), reference]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def _killed(home: Path, reference: str, reached: Any) -> None:
    child = _start(home, reference)
    assert reached(child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert eventually(lambda: not processes_of(home)), processes_of(home)
    paths = Paths.discover({"BANGER_HOME": str(home)})
    (corpse,) = corpses(paths.images)
    assert [entry.name for entry in paths.images.iterdir() if not entry.name.startswith(".")] == []
    assert not paths.blobs.exists() or list(paths.blobs.iterdir()) == []
    remove_tree(corpse)


def _succeeds(home: Path, reference: str) -> None:
    child = _start(home, reference)
    said = child.communicate(timeout=120)[0]
    assert child.returncode == 0, said


@contextmanager
def _disk(place: Path, megabytes: int) -> Iterator[None]:
    """A small file system."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "small", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
