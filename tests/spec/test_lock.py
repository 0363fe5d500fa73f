"""banger.lock: which image a tag is to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.model.artifacts import OciImage
from reconciler.spec import SpecError, load_file, lock

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
SPEC = f"""
apiVersion: banger/v1
name: demo
kernels: {{k: {{debian: {{suite: bookworm}}}}}}
images:
  a: {{oci: "r.io/a:1", kernel: k}}
  b: {{oci: "r.io/b:1", kernel: k}}
  c: {{oci: "r.io/a@{OTHER}", kernel: k}}
  d: {{debian: {{suite: bookworm}}, kernel: k}}
vms: {{va: {{image: a}}, vb: {{image: b}}, vd: {{image: d}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "banger.yaml"
    path.write_text(SPEC)
    return path


def test_a_locked_tag_is_the_image_that_it_is_to_be(file: Path) -> None:
    before = load_file(file)
    (file.parent / lock.NAME).write_bytes(lock.written({"r.io/a:1": DIGEST, "r.io/unused:1": OTHER}))
    after = load_file(file)
    digests = {name: image.digest for name, image in after.desired.images.items()}
    assert digests == {"a": DIGEST, "b": "", "c": OTHER, "d": ""}
    vms = after.desired.vms
    assert (vms["va"].image_id, vms["va"].image_digest) == (OciImage(ref="r.io/a:1", digest=DIGEST).id, DIGEST)
    assert {name: vms[name] for name in ("vb", "vd")} == {name: before.desired.vms[name] for name in ("vb", "vd")}
    assert after.digest != before.digest, "a saved plan is of the lock, too"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"apiVersion": "banger/v2", "kind": "lock", "images": []}',
        '{"apiVersion": "banger/v1", "kind": "lock", "images": [], "more": 1}',
        '{"apiVersion": "banger/v1", "kind": "lock", "images": [{"ref": "r.io/a:1", "digest": "sha256:12"}]}',
        '{"apiVersion": "banger/v1", "kind": "lock", "images": [{"ref": "a", "digest": "' + DIGEST + '"}]}',
        '{"apiVersion": "banger/v1", "kind": "lock", "images": [3]}',
    ],
)
def test_a_lock_that_is_none_is_told_and_not_passed_over(file: Path, text: str) -> None:
    (file.parent / lock.NAME).write_text(text)
    with pytest.raises(SpecError, match=r"banger\.lock: is no lock of images"):
        load_file(file)


def test_what_is_written_is_sorted_and_read_back(file: Path) -> None:
    digests = {"r.io/b:1": DIGEST, "r.io/a:1": OTHER}
    (file.parent / lock.NAME).write_bytes(lock.written(digests))
    assert dict(lock.read_beside(file).digests) == digests
    assert lock.written(digests) == lock.written(dict(reversed(digests.items())))


def test_what_is_built_on_a_locked_image_or_boots_its_kernel_is_another_one_too(file: Path) -> None:
    file.write_text(
        SPEC.replace(
            "  d: {debian",
            "  top: {from: middle, steps: [{run: 'true'}], kernel: k}\n"
            "  middle: {from: a, steps: [{run: 'true'}], kernel: k}\n"
            "  own: {oci: 'r.io/a:1', kernel: from-image}\n  d: {debian",
        ).replace("vd: {image: d}", "vd: {image: d}, vt: {image: top}, vo: {image: own}")
    )
    before = load_file(file).desired
    ids = {name: image.id for name, image in before.images.items()}
    assert before.unresolved == {ids[name] for name in ("a", "b", "own", "middle", "top")}
    (file.parent / lock.NAME).write_bytes(lock.written({"r.io/a:1": DIGEST}))
    after = load_file(file).desired
    assert after.unresolved == {ids["b"]}
    assert after.vms["vt"].image_id == after.images["top"].id != ids["top"]
    assert after.vms["vo"].kernel_id == after.kernels["own"].id != before.kernels["own"].id
    assert {vm.image_id for vm in after.vms.values()} <= {image.id for image in after.images.values()}
