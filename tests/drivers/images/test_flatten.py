"""Blobs that are not what they are called, bounds that hold, and nothing that stays."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from reconciler.drivers.images import flatten as module
from reconciler.drivers.images.flatten import Flattened, Layer, Limits, flatten, media_type
from reconciler.drivers.images.layers.blobs import CHUNK, WINDOW
from reconciler.lib.errors import BangerError
from reconciler.lib.progress import Silent
from reconciler.lib.run import which
from reconciler.lib.units import GIB, MIB
from tests.drivers.images import archives, trees

pytestmark = pytest.mark.skipif(which("bwrap") is None, reason="bubblewrap is not installed")
TAR = archives.archive([{"name": "f", "content": "x" * 3000}])


class Place:
    """Where one image is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.scratch = folder / "scratch"
        self.out.mkdir()
        self.scratch.mkdir()

    def layer(self, data: bytes, packing: str, tar: bytes | None = None) -> Layer:
        """A blob that its descriptor describes rightly."""
        path = self.folder / f"blob-{len(list(self.folder.iterdir()))}"
        path.write_bytes(data)
        kind = archives.OCI + {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}[packing]
        return Layer(path, kind, archives.digest(data), len(data), archives.digest(tar) if tar else None)

    def flatten(self, *layers: Layer, limits: Limits | None = None) -> Flattened:
        return flatten(layers, self.out / "rootfs.squashfs", self.scratch, Silent(), limits)

    def refused(self, *layers: Layer, says: str, limits: Limits | None = None) -> None:
        with pytest.raises(BangerError, match=says) as problem:
            self.flatten(*layers, limits=limits)
        assert problem.value.cause.startswith("the image is refused: ")
        assert list(self.out.iterdir()) == []
        assert [path.name for path in self.scratch.iterdir()] in ([], ["flatten.json"])

    def tree(self) -> trees.Tree:
        return trees.of_squashfs(self.out / "rootfs.squashfs")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_gzip_of_several_members(place: Place) -> None:
    cuts = [0, 1, 700, 700, len(TAR)]
    parts = [gzip.compress(TAR[a:b]) for a, b in itertools.pairwise(cuts)]
    done = place.flatten(place.layer(b"".join(parts), "gzip", TAR))
    assert (done.entries, done.bytes) == (1, len(TAR))
    assert place.tree().nodes["f"].content == "x" * 3000


@pytest.mark.parametrize("junk", [b"\0", b"junk", b"\x1f", b"\x1f\x8b", bytes(512)], ids=range(5))
def test_junk_behind_gzip(place: Place, junk: bytes) -> None:
    place.refused(place.layer(gzip.compress(TAR) + junk, "gzip"), says="after its gzip data|gzip data|gzip: ")


@pytest.mark.parametrize("size", [CHUNK - 1024, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_content_around_the_size_of_a_chunk(place: Place, size: int) -> None:
    tar = archives.archive([{"name": "f", "content": {"repeat": "ab", "times": size // 2}}, {"name": "g"}])
    place.flatten(place.layer(gzip.compress(tar), "gzip", tar))
    tree = place.tree()
    assert set(tree.nodes) == {".", "f", "g"}
    assert tree.nodes["f"].content == archives.digest(b"ab" * (size // 2)).removeprefix("sha256:")


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_truncated_gzip(place: Place, cut: int) -> None:
    place.refused(
        place.layer(gzip.compress(TAR)[:-cut], "gzip"), says="ends in the middle of its (gzip data|tar archive)"
    )


def test_damaged_gzip(place: Place) -> None:
    data = bytearray(gzip.compress(TAR))
    data[-6] ^= 1  # of its checksum
    place.refused(place.layer(bytes(data), "gzip"), says="is damaged: gzip: ")


def test_zstd_of_several_frames_with_one_to_skip(place: Place) -> None:
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    skip = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    place.flatten(place.layer(pack(TAR[:100]) + skip + pack(TAR[100:]) + skip, "zstd", TAR))
    assert place.tree().nodes["f"].content == "x" * 3000


@pytest.mark.parametrize("junk", [b"\0", b"junk", gzip.compress(b"")], ids=range(3))
def test_junk_behind_zstd(place: Place, junk: bytes) -> None:
    place.refused(place.layer(zstandard.compress(TAR) + junk, "zstd"), says="zstd: ")


def test_a_zstd_window_that_is_too_large(place: Place) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=WINDOW.bit_length())
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # does not know the size
    place.refused(place.layer(packer.compress(TAR) + packer.flush(), "zstd"), says="needs a window of more than")


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_costs_its_budget_and_no_more(place: Place, packing: str) -> None:
    """1 GiB of zeros in a file, unpacked up to the 64 MiB that are allowed."""
    start = archives.header(name="f", size=f"{GIB:o}")
    if packing == "gzip":
        data = gzip.compress(start) + gzip.compress(bytes(16 * MIB), 9) * 64
    else:
        data = zstandard.compress(start) + zstandard.compress(bytes(16 * MIB)) * 64
    limits = Limits(bytes=64 * MIB, memory=100 * MIB)
    place.refused(place.layer(data, packing), limits=limits, says="unpacks to more than the 67108864 bytes")


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("data", [b"", TAR, b"\0"], ids=["nothing", "tar", "zero"])
def test_what_is_not_compressed(place: Place, packing: str, data: bytes) -> None:
    place.refused(
        place.layer(data, packing), says="is not compressed with gzip|zstd: |in the middle of its tar archive"
    )


@pytest.mark.parametrize("data", [gzip.compress(TAR), zstandard.compress(TAR)], ids=["gzip", "zstd"])
def test_compressed_bytes_that_are_called_plain(place: Place, data: bytes) -> None:
    place.refused(place.layer(data.ljust(512, b"\0"), "plain"), says="damaged header|is not a number")


def test_digests_and_sizes(place: Place) -> None:
    data = gzip.compress(TAR)
    right = place.layer(data, "gzip", TAR)
    other = "sha256:" + "0" * 64
    place.refused(replace(right, digest=other), says=f"layer 1 of 1 has the digest {right.digest}, and not {other}")
    place.refused(replace(right, diff_id=other), says=f"unpacks to {right.diff_id}, and not to its diff id {other}")
    for size in (right.size - 1, right.size + 1, -1):
        place.refused(replace(right, size=size), says=f"has {right.size} bytes, and not the {size} of its descriptor")
    for digest in ("sha256:../x", "md5:" + "0" * 32, "sha256:" + "A" * 64, right.digest + "\n", ""):
        place.refused(replace(right, digest=digest), says="both have to be sha256")
        place.refused(replace(right, diff_id=digest), says="both have to be sha256")
    place.flatten(right)


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/json",
        "",
    ],
)
def test_media_types_that_are_no_layers(place: Place, kind: str) -> None:
    place.refused(replace(place.layer(TAR, "plain"), media_type=kind), says="which is no layer that can be flattened")


def test_no_layers_and_too_many(place: Place) -> None:
    place.refused(says="it has 0 layers")
    place.refused(*[place.layer(TAR, "plain")] * 501, says="it has 501 layers")


def test_a_layer_that_is_not_there(place: Place) -> None:
    layer = place.layer(TAR, "plain")
    layer.path.unlink()
    place.refused(layer, says=f"layer 1 of 1 is not at {layer.path}")


def test_time_is_bounded(place: Place) -> None:
    tar = archives.archive([{"name": f"f{number}"} for number in range(50_000)])
    place.refused(
        place.layer(tar, "plain"), limits=Limits(seconds=0.2), says="takes more than the 0.2 s of processor time"
    )


def test_the_same_layers_make_the_same_bytes(place: Place) -> None:
    layers = [place.layer(TAR, "plain"), place.layer(archives.archive([{"name": "g/h", "content": "y"}]), "plain")]
    place.flatten(*layers)
    squashfs = place.out / "rootfs.squashfs"
    first = squashfs.read_bytes()
    squashfs.unlink()
    place.flatten(*layers)
    assert squashfs.read_bytes() == first


def test_what_exists_is_not_overwritten(place: Place) -> None:
    squashfs = place.out / "rootfs.squashfs"
    squashfs.write_text("mine")
    with pytest.raises(BangerError, match="exists already"):
        place.flatten(place.layer(TAR, "plain"))
    assert squashfs.read_text() == "mine"


def test_warnings_are_bounded(place: Place) -> None:
    tar = archives.archive([{"name": "f"}] * 300)
    warnings = place.flatten(place.layer(tar, "plain")).warnings
    assert len(warnings) == 101 and warnings[-1] == "and 199 more like these"


def test_progress_goes_up_to_the_end(place: Place) -> None:
    steps: list[float] = []

    class Steps:
        def update(self, fraction: float | None, message: str) -> None:
            assert message == "flattening the layers" and fraction is not None
            steps.append(fraction)

    tar = archives.archive([{"name": f"f{number}", "content": "x" * 100_000} for number in range(40)])
    layer = place.layer(tar, "plain")
    flatten([layer], place.out / "rootfs.squashfs", place.scratch, Steps())
    assert steps == sorted(steps) and len(steps) > 5 and steps[0] < 0.5 and steps[-1] > 0.9


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_media_types_by_the_first_bytes(place: Place, packing: str) -> None:
    layer = archives.layer(place.folder / "x", TAR, packing)
    assert media_type(layer.path) == layer.media_type


def test_the_sandbox_sees_nothing_of_the_host(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader that was taken over could do: it looks around, and tells what it finds."""
    secret = place.folder / "secret"
    secret.write_text("x")
    script = (
        "import os, json, socket, sys\n"
        "found = {'files': sorted(os.listdir('/')), 'secret': os.path.exists(sys.argv[1]), 'uid': os.getuid()}\n"
        "found['caps'] = [l for l in open('/proc/self/status')] if os.path.exists('/proc/self') else None\n"
        "found['interfaces'] = [name for _, name in socket.if_nameindex()]\n"
        "import ctypes, struct; head = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0)); "
        "data = ctypes.create_string_buffer(24); ctypes.CDLL(None).capget(head, data); found['rights'] = any(data.raw)\n"
        "found['environment'] = sorted(os.environ)\n"
        "found['written'] = []\n"
        "for path in ('/x', '/usr/x', '/tmp/x', '/layers/1', '/banger/x', '/dev/x', '/dev/shm/x'):\n"
        "    try: open(path, 'ab').close(); found['written'].append(path)\n"
        "    except OSError: pass\n"
        "print(json.dumps({'refused': json.dumps(found)}), file=sys.stderr); sys.exit(3)\n"
    )
    whole = module.boxed

    def looking(argv: list[str], *rest: object, python: bool = False, **more: object) -> list[str]:
        words = [*module.interpreter(), "-c", script, str(secret)] if python else argv
        return whole(words, *rest, python=python, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "boxed", looking)
    with pytest.raises(BangerError) as told:
        place.flatten(place.layer(TAR, "plain"))
    found = json.loads(told.value.cause)
    assert not found["secret"] and found["uid"] == (0 if os.geteuid() == 0 else 65534) and found["caps"] is None
    assert found["interfaces"] == ["lo"] and not found["rights"]
    assert found["written"] == []
    # The interpreter may lie anywhere, and is seen with the folders on the way to it.
    ours = {path.parts[1] for path in (Path(sys.prefix), Path(sys.base_prefix))}
    assert not {"home", "etc/shadow", "proc", "run", "var", "root"} - ours & set(found["files"])
    assert set(found["environment"]) <= {"PATH", "LC_ALL", "PWD", "PYTHONPATH", "MALLOC_ARENA_MAX"}
    assert not Path("/x").exists()
