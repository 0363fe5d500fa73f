"""Odd and hostile layers, as data: tests/cases/layers. What each row expects stands beside it.

R: the image is refused, the error names what is to blame, and nothing stays. C and K: it is made, and has what is said.
Whatever happens, a part of the host next to it stays as it was.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.drivers.images.flatten import MEDIA_TYPES, Flattened, Layer, Limits, flatten
from reconciler.drivers.images.layers.blobs import Blob, Budget
from reconciler.drivers.images.layers.merge import merge
from reconciler.drivers.images.layers.refusal import RefusedError
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.progress import Silent
from reconciler.lib.run import which
from tests.drivers.images import archives, trees
from tests.drivers.images.sentinel import SECRET, Sentinel

ELSEWHERE = {
    "gzip multi-member / trailing junk / huge zstd window",
    "gzip and zstd zero bombs",
    "digest bad, size ±1",
    "size −1; digest `sha256:../x`, md5",
    "gzip labelled plain tar",
    "foreign `urls` to 169.254.169.254",
    "title annotation or server header as path (CVE-2025-62725, CVE-2026-48769)",
}
CASES = Path(__file__).parents[2] / "cases" / "layers"
pytestmark = pytest.mark.skipif(which("bwrap") is None, reason="bubblewrap is not installed")


def cases(*, whole: bool | None = None) -> list[Any]:
    """All, or those that need the whole way, or those for which the reader is enough: refused, and not of the list."""
    found = []
    for path in sorted(CASES.glob("*.yaml")):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")):
            if whole is None or whole == (case["expect"] != "R" or "row" in case):
                found.append(pytest.param(case, id=f"{path.stem}: {case['case']}"))
    return found


def layers_of(case: dict[str, Any], folder: Path) -> list[Layer]:
    return [
        archives.layer(folder / f"layer-{number}", archives.archive(members), case.get("packing", "plain"))
        for number, members in enumerate(case["layers"])
    ]


def make(case: dict[str, Any], folder: Path) -> Flattened:
    """Flattens the layers of a case, next to which there is a `host`."""
    limits = Limits(**{"bytes": 64 << 20, "seconds": 30.0, **case.get("limits", {})})
    (folder / "scratch").mkdir()
    return flatten(layers_of(case, folder), folder / "out" / "rootfs.squashfs", folder / "scratch", Silent(), limits)


@pytest.mark.parametrize("case", cases(whole=False))
def test_the_reader_refuses(case: dict[str, Any], tmp_path: Path) -> None:
    limits = Limits(**{"bytes": 64 << 20, **case.get("limits", {})})
    blobs = [
        Blob(layer.path, MEDIA_TYPES[layer.media_type], layer.digest, layer.size, layer.diff_id)
        for layer in layers_of(case, tmp_path)
    ]
    with pytest.raises(RefusedError, match=re.escape(case["says"])):
        merge(blobs, Budget(limits.bytes), limits.entries, lambda _: None)


@pytest.mark.parametrize("case", cases(whole=True))
def test_a_layer(case: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    sentinel = Sentinel(tmp_path / "host")
    if case["expect"] == "R":
        with pytest.raises(BangerError, match=re.escape(case["says"])) as refused:
            make(case, tmp_path)
        assert refused.value.error_class is ErrorClass.TERMINAL
        assert refused.value.cause.isprintable()
        assert list(out.iterdir()) == []
    else:
        done = make(case, tmp_path)
        tree = trees.of_squashfs(out / "rootfs.squashfs")
        check(case, tree)
        said = "\n".join(done.warnings)
        assert case.get("warns", "") in said and bool(case.get("warns")) == bool(said)
        assert all(SECRET not in node.content for node in tree.nodes.values())
    assert sentinel.untouched()


def check(case: dict[str, Any], tree: trees.Tree) -> None:
    expected = case["tree"]
    assert sorted(tree.nodes) == sorted({".", *(archives.raw(name).decode("latin-1") for name in expected)})
    for name, wanted in expected.items():
        node = tree.nodes[archives.raw(name).decode("latin-1")]
        for attribute, value in wanted.items():
            found = getattr(node, attribute)
            if attribute == "mode":
                found = oct(found)
            elif attribute == "xattrs":
                found = tuple(map(list, found))
            assert (list(found) if isinstance(value, list) else found) == value, (name, attribute)
    assert tree.groups == {frozenset(group) for group in case.get("groups", [])}


def test_the_list_has_every_row() -> None:
    """`rows.txt` is the list. What is not data is tested in test_flatten, or by those who fetch layers."""
    rows = set((CASES / "rows.txt").read_text(encoding="utf-8").splitlines())
    assert {case.values[0]["row"] for case in cases() if "row" in case.values[0]} == rows - ELSEWHERE
