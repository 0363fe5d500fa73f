"""Images of registries and of the disk: what they become, and when a registry is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.drivers.images import build as builder
from reconciler.drivers.images import oci
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import Paths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import Image, OciImage, Pull
from tests.drivers.pulling import BASE, UPPER, built, content, made, needs_tools
from tests.fakes.images import MadeImage, Registry, digest, image, index, serving

pytestmark = needs_tools


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as started:
        yield started


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_an_image_is_pulled_flattened_and_described(registry: Registry, paths: Paths, compression: str) -> None:
    config = {
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c", "true"],
        "Env": ["A=b"],
        "User": "1:2",
        "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"x": "y"},
        "StopSignal": "SIGINT",
    }
    pushed = image(BASE, UPPER, config=config, compression=compression)
    manifest = built(made(registry.push("a/b", "1", pushed)), paths)
    assert content(paths, manifest) == {"/etc/os-release": b"ID=test\n", "/new": b"2"}
    assert manifest["config"] == {
        "entrypoint": ["/bin/sh"],
        "cmd": ["-c", "true"],
        "env": ["A=b"],
        "user": "1:2",
        "workdir": "/srv",
        "ports": ["80/tcp"],
        "labels": {"x": "y"},
        "stopSignal": "SIGINT",
    }
    assert manifest["digest"] == manifest["manifest"] == pushed.digest
    assert manifest["source"] == {
        "tag": "oci",
        "ref": registry.reference("a/b", "1"),
        "path": "",
        "platform": "linux/amd64",
    }


def test_what_docker_pushes_is_cached_under_its_own_digests(registry: Registry, paths: Paths) -> None:
    pushed = image(BASE, docker=True)
    manifest = built(made(registry.push("a/b", "1", pushed)), paths)
    assert manifest["digest"] == pushed.digest
    assert {f"sha256:{blob.name}" for blob in paths.blobs.iterdir()} == {pushed.digest, *pushed.blobs}


def test_the_platform_is_picked_out_of_an_index(registry: Registry, paths: Paths) -> None:
    ours, other = image({"which": b"ours"}), image({"which": b"theirs"}, architecture="arm64")
    raw = index(linux_arm64=other, linux_amd64=ours)
    manifest = built(made(registry.push_index("a/b", "1", raw, [ours, other])), paths)
    assert content(paths, manifest) == {"/which": b"ours"}
    assert (manifest["digest"], manifest["manifest"]) == (digest(raw), ours.digest)
    with pytest.raises(BangerError) as refused:
        builder.build(made(registry.reference("a/b", "1"), platform="linux/386"), paths, Silent())
    assert "no image for linux/386" in refused.value.cause
    assert refused.value.hint == "it is there for: linux/amd64, linux/arm64"


def test_a_second_build_asks_nobody(registry: Registry, paths: Paths) -> None:
    wanted = made(registry.push("a/b", "1", image(BASE)))
    built(wanted, paths)
    registry.asked.clear()
    built(wanted, paths)
    assert registry.asked == []


def test_an_image_is_made_again_of_cached_blobs_without_a_registry(registry: Registry, paths: Paths) -> None:
    wanted = made(registry.push("a/b", "1", image(BASE, docker=True)))
    first = content(paths, built(wanted, paths))
    shutil.rmtree(paths.images)
    registry.asked.clear()
    again = built(replace(wanted, source=replace(wanted.source, pull=Pull.NEVER)), paths)
    assert registry.asked == []
    assert content(paths, again) == first


def test_layers_that_images_share_are_pulled_once(registry: Registry, paths: Paths) -> None:
    one, two = image(BASE, {"one": b"1"}), image(BASE, {"two": b"2"})
    builder.build(made(registry.push("a/one", "1", one)), paths, Silent())
    registry.asked.clear()
    builder.build(made(registry.push("a/two", "1", two)), paths, Silent())
    shared = next(iter(one.blobs.keys() & two.blobs.keys()))
    assert registry.count(shared) == 0


def test_two_names_of_one_image_are_one_image(registry: Registry, paths: Paths) -> None:
    pushed = image(BASE)
    for name in ("one", "two"):
        builder.build(made(registry.push(name, "1", pushed)), paths, Silent())
    assert len([folder for folder in paths.images.iterdir() if not folder.name.startswith(".")]) == 1


def test_many_ask_and_one_pulls(registry: Registry, paths: Paths) -> None:
    pushed = image(BASE)
    wanted = made(registry.push("a/b", "1", pushed))
    threads = [threading.Thread(target=builder.build, args=(wanted, paths, Silent())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    layer = pushed.manifest["layers"][0]["digest"]
    assert registry.count(layer) == 1


def test_always_asks_and_never_does_not(registry: Registry, paths: Paths) -> None:
    reference = registry.push("a/b", "1", image(BASE))
    never = OciImage(ref=reference, tls_verify=False, pull=Pull.NEVER)
    with pytest.raises(BangerError, match="`pull: never` does not allow") as refused:
        oci.found(never, paths)
    assert refused.value.error_class is ErrorClass.TERMINAL
    old = oci.found(replace(never, pull=Pull.MISSING), paths).digest
    assert oci.found(never, paths).digest == old
    registry.push("a/b", "1", image(UPPER))
    assert oci.found(replace(never, pull=Pull.MISSING), paths).digest == old
    new = oci.found(replace(never, pull=Pull.ALWAYS), paths).digest
    assert new != old
    assert oci.found(never, paths).digest == new


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_an_image_on_disk_is_taken_and_seen_to_change(
    registry: Registry, paths: Paths, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "image"

    def save(made_of: MadeImage) -> None:
        reference = registry.push("a/b", "1", made_of)
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        words = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"{kind}:{place}"]
        subprocess.run(words, check=True)

    save(image(BASE, UPPER))
    wanted = Image(name="x", source=OciImage(path=str(place)), kernel="k")
    manifest = built(wanted, paths)
    assert content(paths, manifest) == {"/etc/os-release": b"ID=test\n", "/new": b"2"}
    before = oci.found(OciImage(path=str(place)), paths).digest
    save(image(BASE, {"new": b"other"}))
    assert oci.found(OciImage(path=str(place)), paths).digest != before


def test_a_cached_blob_that_the_disk_changed_is_fetched_again(registry: Registry, paths: Paths) -> None:
    pushed = image({"big": os.urandom(100_000)})
    wanted = made(registry.push("a/b", "1", pushed))
    built(wanted, paths)
    blob = paths.blobs / pushed.manifest["layers"][0]["digest"].removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[50_000] ^= 1
    blob.write_bytes(data)
    shutil.rmtree(paths.images)
    with pytest.raises(BangerError, match="was damaged") as damaged:
        builder.build(wanted, paths, Silent())
    assert damaged.value.error_class is ErrorClass.RETRYABLE
    built(wanted, paths)
