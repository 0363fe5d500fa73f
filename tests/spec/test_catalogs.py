"""Catalogs: what `catalog: NAME/ENTRY` means, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reconciler.model.artifacts import DebianImage, DebianKernel, ImageKernel
from reconciler.spec import Loaded, SpecError, load_file, lock, published
from reconciler.spec.cataloged import entries_of, sources_of
from reconciler.spec.catalogs import check

SIGNER = "ops@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9vTqlSlGcLLmvGKNc0XqzmLBTKGv3qqEoMPRJ5YWtC"
HASH = "ab" * 32
INDEX = {
    "apiVersion": "banger/v1",
    "kind": "catalog",
    "kernels": {"k": {"debian": {"suite": "bookworm"}}},
    "images": {
        "gold": {"debian": {"suite": "bookworm", "packages": ["git"]}, "kernel": "k", "description": "ours"},
        "own": {"debian": {"suite": "bookworm", "packages": ["linux-image-amd64"]}, "kernel": "from-image"},
        "disk": {"file": "disk.qcow2", "sha256": HASH, "kernel": "k"},
    },
}


class Files:
    """A folder with a file, a catalog beside it, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"BANGER_HOME": str(folder / "home")}
        self.index(INDEX)

    def index(self, index: object, place: str = "more/catalog.yaml") -> None:
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / place).write_text(yaml.safe_dump(index))

    def load(self, **document: object) -> Loaded:
        made = {"apiVersion": "banger/v1", "name": "demo", **document}
        made.setdefault("catalogs", {"team": {"file": "more/catalog.yaml"}})
        path = self.folder / "banger.yaml"
        path.write_text(yaml.safe_dump(made))
        return load_file(path, {}, self.env)

    def refused(self, **document: object) -> str:
        with pytest.raises(SpecError) as caught:
            self.load(**document)
        return caught.value.cause


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_built_in_catalog_is_made_of_debian_alone() -> None:
    found, problems = entries_of(None, {})
    assert problems == []
    assert {(entry.kind, entry.reference) for entry in found} == {
        (kind, name) for kind in ("image", "kernel") for name in ("debian-12", "debian-13")
    }
    assert all(isinstance(entry.source, (DebianImage, DebianKernel)) and entry.description for entry in found)


def test_an_entry_is_what_it_would_be_in_the_file(files: Files) -> None:
    desired = files.load(
        kernels={"named": {"catalog": "debian-12"}},
        images={
            "base": {"catalog": "debian-12"},
            "gold": {"catalog": "team/gold"},
            "mine": {"catalog": "team/gold", "kernel": "named"},
            "own": {"catalog": "team/own"},
            "built": {"from": "gold", "steps": [], "kernel": "named"},
            "same": {"catalog": "banger/debian-12"},
            "disk": {"catalog": "team/disk"},
        },
        vms={"dev": {"image": "gold"}},
    ).desired
    written = files.load(
        kernels={"named": {"debian": {"suite": "bookworm"}}},
        images={"gold": {"debian": {"suite": "bookworm", "packages": ["git"]}, "kernel": "named"}},
        vms={"dev": {"image": "gold"}},
    ).desired
    assert desired.images["gold"].source == written.images["gold"].source
    assert desired.images["gold"].kernel == "gold" and desired.images["mine"].kernel == "named"
    assert desired.images["base"].source == desired.images["same"].source == DebianImage(suite="bookworm")
    assert desired.kernels["gold"].source == desired.kernels["named"].source == written.kernels["named"].source
    assert isinstance(desired.kernels["own"].source, ImageKernel)
    assert desired.images["disk"].source.url == (files.folder / "more" / "disk.qcow2").as_uri()  # type: ignore[union-attr]
    have, would = desired.vms["dev"], written.vms["dev"]
    assert (have.image_id, have.kernel_id) == (would.image_id, would.kernel_id)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ({"a": {"catalog": "debain-12"}}, "catalog banger has no image 'debain-12'; did you mean 'debian-12'?"),
        ({"a": {"catalog": "tame/gold"}}, "there is no catalog 'tame'; did you mean 'team'?"),
        ({"a": {"catalog": "a/b/c"}}, "images.a.catalog: 'a/b/c' is not ENTRY or CATALOG/ENTRY"),
        ({"a": {"catalog": "debian-12", "sha256": HASH}}, "images.a.sha256: means nothing beside 'catalog'"),
        ({"a": {"catalog": "debian-12", "debian": {"suite": "sid"}}}, "'catalog' besides 'debian'"),
        ({"a": {"debian": {"suite": "sid"}}}, "images.a: 'kernel' is missing; for example `kernel: debian`"),
        ({"k": {"catalog": "debian-12"}}, "would have the name of another one of `kernels`"),
    ],
)
def test_what_is_wrong_with_a_use_is_told_where_it_stands(files: Files, images: object, told: str) -> None:
    cause = files.refused(kernels={"k": {"catalog": "team/k"}}, images=images)
    assert told in cause and "banger.yaml:" in cause and "\n" not in cause


@pytest.mark.parametrize(
    ("catalog", "told"),
    [
        ({"url": "https://x.org/c"}, "'signers' is missing beside it"),
        ({"git": "https://x.org/c"}, "'signers' is missing beside it"),
        ({"git": "ext::sh -c id", "signers": [SIGNER]}, "is not an address"),
        ({"url": "https://x.org/c", "signers": []}, "signers"),
        ({"url": "https://x.org/c", "signers": ["ssh-ed25519"]}, "is not a name, the type of a key"),
        ({"url": "https://x.org/c", "signers": [SIGNER + "\nevil * ssh-ed25519 AAAA"]}, "is not a name, the type"),
        ({"url": "https://me:secret@x.org/c", "signers": [SIGNER]}, "has a name or a password"),
        ({"url": "https://x.org/c", "signers": [SIGNER], "ref": "main"}, "it goes with 'git'"),
        ({"git": "https://x.org/c", "signers": [SIGNER], "path": "/etc/passwd"}, "is not the path of a file"),
        ({"git": "https://x.org/c", "signers": [SIGNER], "ref": "--upload-pack=id"}, "is not the name of a branch"),
        ({"file": "more/catalog.yaml", "signers": [SIGNER]}, "a file of this host needs none"),
        ({"file": "nothing.yaml"}, "there is no such file"),
        ({"url": "https://x.org/c", "signers": [SIGNER]}, "was not fetched yet; `banger image catalog --update`"),
    ],
)
def test_a_catalog_that_cannot_be_used_is_told(files: Files, catalog: object, told: str) -> None:
    cause = files.refused(catalogs={"team": catalog}, images={"a": {"catalog": "team/gold"}})
    assert told in cause and "secret" not in cause and "\n" not in cause


def test_the_name_of_the_built_in_one_is_taken(files: Files) -> None:
    assert "'banger' is built in" in files.refused(catalogs={"banger": {"file": "more/catalog.yaml"}})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "list"}, "kind: 'list' is not catalog"),
        ({"images": {"gold": {"from": "own", "kernel": "k"}}}, "unknown key 'from'"),
        ({"images": {"gold": {"debian": {"suite": "bookworm"}, "kernel": "q"}}}, "no kernel 'q' in this catalog"),
        ({"images": {"gold": {"debian": {"suite": "bookworm"}}}}, "'kernel' is missing"),
        ({"more": 1}, "unknown key 'more'"),
        ({"images": {"gold": {"oci": "::", "kernel": "k"}}}, "is no reference to an image"),
    ],
)
def test_what_is_wrong_in_an_index_is_told_where_it_stands(files: Files, change: dict[str, object], told: str) -> None:
    files.index({**INDEX, **change})
    cause = files.refused(images={"a": {"catalog": "team/gold"}, "b": {"catalog": "team/gold"}})
    assert told in cause and f"{files.folder}/more/catalog.yaml:" in cause


@pytest.mark.parametrize(
    "image",
    [
        {"file": "/etc/shadow", "sha256": HASH},
        {"oci": {"path": "/srv/layout"}},
        {"oci": {"ref": "r.io/a:1", "authFile": "/root/auth.json"}},
        {"debian": {"suite": "bookworm", "sources": [{"uri": "https://x.org", "suite": "amd64/", "components": [], "keyring": {"file": "/etc/k", "sha256": HASH}}]}},
    ],
)  # fmt: skip
def test_an_index_from_elsewhere_names_no_files_of_the_host(image: dict[str, object]) -> None:
    text = json.dumps({**INDEX, "images": {"x": {**image, "kernel": "k"}}}).encode()
    check(text, "c", fetched=False)
    with pytest.raises(SpecError, match="names no files of this host"):
        check(text, "c", fetched=True)


def test_a_lock_pins_what_an_entry_meant(files: Files) -> None:
    asked = {"images": {"gold": {"catalog": "team/gold"}}, "vms": {"dev": {"image": "gold"}}}
    before = files.load(**asked)
    (files.folder / lock.NAME).write_bytes(lock.written({}, before.catalogs))
    files.index({**INDEX, "images": {"gold": {"debian": {"suite": "trixie"}, "kernel": "k"}}})
    assert files.load(**asked).desired == before.desired
    (entry,) = [e for e in entries_of(files.folder / "banger.yaml", {})[0] if e.reference == "team/gold"]
    assert entry.locked and entry.source == before.desired.images["gold"].source
    (files.folder / "more" / "catalog.yaml").unlink()
    assert files.load(**asked).desired == before.desired, "the lock has all of it"
    with pytest.raises(SpecError, match="there is no such file"):
        load_file(files.folder / "banger.yaml", {}, files.env, heed_lock=False)


@pytest.mark.parametrize(
    "catalogs",
    ["[]", "{'team': 3}", "{'team': {'images': []}}", "{'team': {'images': {'gold': {'debian': 3}}}}"],
)
def test_a_lock_that_is_damaged_is_told(files: Files, catalogs: str) -> None:
    head = '{"apiVersion": "banger/v1", "kind": "lock", "images": [], "catalogs": '
    text = head + catalogs.replace("'", '"') + "}"
    (files.folder / lock.NAME).write_text(text)
    assert "banger.lock" in files.refused(images={"a": {"catalog": "team/gold"}})


def test_the_schema_and_the_readers_mean_the_same() -> None:
    """What a catalog may say of an image and a kernel is what a file may, less what refers to others of the file."""
    ours = published.schema("catalog")["properties"]
    theirs = published.schema()["$defs"]
    for section, name, less in (("images", "image", {"from", "steps", "catalog"}), ("kernels", "kernel", {"catalog"})):
        known = set(ours[section]["additionalProperties"]["properties"]) - {"description"}
        assert known == set(theirs[name]["properties"]) - less


def test_where_a_catalog_lies_and_who_signs_it_say_what_is_kept(files: Files) -> None:
    keys = set()
    for catalog in (
        {"url": "https://x.org/c", "signers": [SIGNER]},
        {"url": "https://x.org/d", "signers": [SIGNER]},
        {"git": "https://x.org/c", "signers": [SIGNER]},
        {"git": "https://x.org/c", "signers": [SIGNER], "ref": "main"},
        {"url": "https://x.org/c", "signers": [SIGNER, SIGNER.replace("ops", "more")]},
    ):
        files.refused(catalogs={"team": catalog}, images={"a": {"catalog": "team/x"}})
        keys.add(sources_of(files.folder / "banger.yaml", {})["team"].key)
    assert len(keys) == 5
