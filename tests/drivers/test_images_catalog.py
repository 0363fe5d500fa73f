"""Catalogs from elsewhere: taken with a good signature of a signer, and otherwise what was there stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconciler.daemon.catalogs import update
from reconciler.drivers.images import catalog
from reconciler.lib import cancel
from reconciler.lib import download as downloading
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.model.catalog import CatalogSource
from reconciler.spec.catalogs import key_file
from tests.lib.misbehaving import Answer, reply, serving, stall

INDEX = b"""\
apiVersion: banger/v1
kind: catalog
kernels: {k: {debian: {suite: bookworm}}}
images: {gold: {debian: {suite: bookworm}, kernel: k}}
"""
NEWER = INDEX.replace(b"gold", b"silver")


class Keeper:
    """Who keeps a catalog: a folder with a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        words = (folder / "key.pub").read_text().split()
        self.signer = f"ops@example.org {words[0]} {words[1]}"

    def sign(self, index: bytes, namespace: str = catalog.NAMESPACE) -> bytes:
        words = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", self.folder / "key"]
        return subprocess.run(words, input=index, check=True, capture_output=True).stdout


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(cancel, "pause", lambda seconds: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "keeper")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.discover({"BANGER_HOME": str(tmp_path / "home")})


def told(paths: Paths, source: CatalogSource) -> list[str]:
    lines: list[str] = []
    update(paths, [source], lines.append)
    return lines


def kept(paths: Paths, source: CatalogSource) -> bytes | None:
    """What is there; and that nothing else is."""
    found = [path for path in paths.catalogs.rglob("*") if path.is_file()] if paths.catalogs.exists() else []
    place = key_file(paths.catalogs, source)
    assert found in ([], [place]) and not list(paths.catalogs.glob(".staging/*"))
    return place.read_bytes() if found else None


def by_url(url: str, keeper: Keeper) -> CatalogSource:
    return CatalogSource(name="team", url=url, signers=(keeper.signer,))


def test_a_signed_one_is_kept_and_a_second_look_changes_nothing(keeper: Keeper, paths: Paths) -> None:
    signature = keeper.sign(INDEX)
    with serving(reply(INDEX), reply(signature), reply(INDEX), reply(signature)) as server:
        source = by_url(server.url, keeper)
        assert told(paths, source) == ["catalog team: fetched anew"]
        before = key_file(paths.catalogs, source).stat().st_mtime_ns
        assert told(paths, source) == ["catalog team: up to date"]
    assert kept(paths, source) == INDEX and key_file(paths.catalogs, source).stat().st_mtime_ns == before


def bad_signatures(keeper: Keeper, other: Keeper) -> dict[str, tuple[bytes, str]]:
    return {
        "of another key": (other.sign(NEWER), "signed by none of its `signers`"),
        "of another index": (keeper.sign(INDEX), "is wrong: "),
        "for another purpose": (keeper.sign(NEWER, "file"), "is wrong: "),
        "none": (b"", "signed by none of its `signers`"),
        "no signature": (b"-----BEGIN SSH SIGNATURE-----\nnonsense\n", "signed by none of its `signers`"),
        "too long": (b"x" * 100_000, "comes without its signature"),
    }


@pytest.mark.parametrize("which", ["of another key", "of another index", "for another purpose", "none", "no signature", "too long"])  # fmt: skip
def test_a_wrong_signature_is_refused_and_what_was_there_stays(
    keeper: Keeper, paths: Paths, tmp_path: Path, which: str
) -> None:
    signature, cause = bad_signatures(keeper, Keeper(tmp_path / "other"))[which]
    with serving(reply(INDEX), reply(keeper.sign(INDEX)), reply(NEWER), reply(signature)) as server:
        source = by_url(server.url, keeper)
        told(paths, source)
        with pytest.raises(BangerError, match=cause) as caught:
            told(paths, source)
    assert caught.value.hint
    assert kept(paths, source) == INDEX


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ([reply(b"", status="404 Not Found")], "404"),
        ([reply(b"x" * 2_000_000)], "at most 1.0 MiB are taken"),
        ([reply(INDEX), reply(b"", status="404 Not Found")], "comes without its signature"),
        ([stall, stall], "cannot fetch"),
    ],
)
def test_what_does_not_come_whole_is_told_and_leaves_nothing(
    keeper: Keeper, paths: Paths, answers: list[Answer], cause: str
) -> None:
    with serving(*answers) as server:
        source = by_url(server.url, keeper)
        with pytest.raises(BangerError, match=cause):
            told(paths, source)
    assert kept(paths, source) is None


def test_one_that_is_signed_but_wrong_is_not_kept(keeper: Keeper, paths: Paths) -> None:
    wrong = INDEX.replace(b"suite: bookworm}, kernel", b"suit: bookworm}, kernel")
    with serving(reply(wrong), reply(keeper.sign(wrong))) as server:
        source = by_url(server.url, keeper)
        with pytest.raises(BangerError, match="unknown key 'suit'"):
            told(paths, source)
    assert kept(paths, source) is None


def test_one_that_fails_keeps_no_other_back(keeper: Keeper, paths: Paths) -> None:
    lines: list[str] = []
    with serving(reply(b"", status="404 Not Found"), reply(INDEX), reply(keeper.sign(INDEX))) as server:
        bad, good = by_url(server.url, keeper), by_url(server.url + "?", keeper)
        with pytest.raises(BangerError, match="404"):
            update(paths, [bad, good], lines.append)
    assert lines == ["catalog team: fetched anew"] and kept(paths, good) == INDEX


@pytest.fixture
def repository(keeper: Keeper, tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    (repository / "of").mkdir(parents=True)
    commit(repository, {"of/catalog.yaml": INDEX, "of/catalog.yaml.sig": keeper.sign(INDEX)}, "-b", "main")
    return repository


def commit(repository: Path, files: dict[str, bytes], *init: str) -> None:
    for name, content in files.items():
        (repository / name).write_bytes(content)
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"]
    if init:
        subprocess.run([*git, "init", "--quiet", *init], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "x"], check=True)


def by_git(repository: Path, keeper: Keeper, path: str = "of/catalog.yaml", ref: str = "main") -> CatalogSource:
    return CatalogSource(name="team", git=repository.as_uri(), path=path, ref=ref, signers=(keeper.signer,))


def test_a_repository_gives_it_too(keeper: Keeper, paths: Paths, repository: Path) -> None:
    source = by_git(repository, keeper)
    assert told(paths, source) == ["catalog team: fetched anew"]
    commit(repository, {"of/catalog.yaml": NEWER})
    with pytest.raises(BangerError, match="is wrong"):
        told(paths, source)
    assert kept(paths, source) == INDEX
    commit(repository, {"of/catalog.yaml.sig": keeper.sign(NEWER)})
    assert told(paths, source) == ["catalog team: fetched anew"]
    assert kept(paths, source) == NEWER


def test_what_a_repository_lacks_is_named_and_a_link_is_no_file(keeper: Keeper, paths: Paths, repository: Path) -> None:
    (repository / "link.yaml").symlink_to("/etc/hostname")
    commit(repository, {"unsigned.yaml": INDEX, "link.yaml.sig": b"", "large.yaml": b"x" * 2_000_000})
    for source, cause in (
        (by_git(repository, keeper, "no.yaml"), "has no no.yaml"),
        (by_git(repository, keeper, "of"), "git exited|bad file|is a directory|has no of"),
        (by_git(repository, keeper, "unsigned.yaml"), "has no unsigned.yaml.sig"),
        (by_git(repository, keeper, "link.yaml"), "signed by none"),
        (by_git(repository, keeper, "large.yaml"), "at most 1048576 are taken"),
        (by_git(repository, keeper, ref="none"), "none not found"),
    ):
        with pytest.raises(BangerError, match=cause):
            told(paths, source)
        assert kept(paths, source) is None
