"""banger image …: what is listed, what each word means, and the lock file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.lib.errors import UsageError
from tests.cli.conftest import Run
from tests.fakes.service import CACHED, UNUSED, FakeService

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
SPEC = """\
apiVersion: banger/v1
name: demo
kernels: {k: {debian: {suite: bookworm}}}
images: {a: {oci: "r.io/a/b:1", kernel: k}}
vms: {dev: {image: a}}
"""


def test_images_are_listed(run: Run, service: FakeService) -> None:
    assert run("image", "list").stdout == (
        "ID                NAME                  SOURCE           DIGEST               SIZE       "
        "USED BY                                    LAST USE              PINNED\n"
        "0123456789abcdef  demo/base other/base  r.io/a/b:1       sha256:abababababab  300.0 MiB  "
        "demo/dev demo/web-1 demo/web-2 and 1 more  1970-01-01T00:16:40Z\n"
        "fedcba9876543210  demo/spare            Debian bookworm                       1.0 MiB    "
        "                                           1970-01-01T00:33:20Z  yes\n"
    )
    first = json.loads(run("image", "list", "-o", "json").stdout)["items"][0]
    assert first["usedBy"] == list(CACHED.used_by) and first["digest"] == DIGEST and "manifest" not in first
    assert run("image", "list", "-o", "name").stdout == "image/0123456789abcdef\nimage/fedcba9876543210\n"
    service.the_images = []
    nothing = run("image", "list")
    assert nothing.stdout == "" and "no images" in nothing.stderr


def test_one_is_shown_and_its_text_is_harmless(run: Run, service: FakeService) -> None:
    shown = run("image", "show", "demo/base").stdout
    assert "cmd       sh -c\n" in shown and "layers    2\n" in shown and "\x1b" not in shown
    assert json.loads(run("image", "show", "demo/base", "-o", "json").stdout)["manifest"]["layers"] == [{}, {}]


@pytest.mark.parametrize("word", ["fedcba9876543210", "image/fedcba9876543210", "demo/spare", "spare"])
def test_whatever_names_it_means_it(run: Run, service: FakeService, word: str) -> None:
    done = run("image", "rm", word)
    assert done.exit_code == 0
    assert done.stderr == "removed image fedcba9876543210, 1.0 MiB\n"
    assert service.calls[-1] == ("remove_image", UNUSED.id)


def test_what_is_none_or_several_is_told(run: Run, service: FakeService) -> None:
    missing = run("image", "rm", "nope")
    assert missing.exit_code == 2 and "there is no image nope" in missing.stderr
    service.the_images = [CACHED, replace(UNUSED, names=("third/base",))]
    several = run("image", "rm", "base")
    assert several.exit_code == 2 and "write demo/base or other/base or third/base" in several.stderr
    assert ("remove_image", CACHED.id) not in service.calls


def test_a_refusal_is_passed_on(run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(identity: str) -> int:
        raise UsageError("demo/dev is made of it")

    monkeypatch.setattr(service, "remove_image", refuse)
    done = run("image", "rm", "demo/base")
    assert done.exit_code == 2 and "demo/dev is made of it" in done.stderr


def test_pin_and_unpin_say_whether_it_was_so(run: Run, service: FakeService) -> None:
    assert run("image", "pin", "spare").stderr == "pinned image fedcba9876543210\n"
    service.changed = False
    assert run("image", "unpin", "spare").stderr == "image fedcba9876543210 was unpinned already\n"
    assert service.calls[-1] == ("pin_image", UNUSED.id, False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "banger.yaml"
    path.write_text(SPEC)
    return path


def test_a_lock_is_written_beside_the_file_and_a_second_one_changes_nothing(
    run: Run, service: FakeService, file: Path
) -> None:
    lock = file.parent / "banger.lock"
    first = run("image", "lock", "-f", str(file))
    assert first.exit_code == 0
    assert first.stdout.splitlines()[1].split() == ["r.io/a/b:1", "-", "sha256:abababababab"]
    assert json.loads(lock.read_text())["images"] == [{"ref": "r.io/a/b:1", "digest": DIGEST}]
    before = lock.stat().st_mtime_ns, lock.stat().st_ino
    again = run("image", "lock", "-f", str(file))
    assert again.stdout == "" and "none of them another than before" in again.stderr
    assert (lock.stat().st_mtime_ns, lock.stat().st_ino) == before
    assert not list(file.parent.glob(".*"))


def test_a_lock_keeps_what_other_files_have_unless_told_not_to(run: Run, service: FakeService, file: Path) -> None:
    lock = file.parent / "banger.lock"
    run("image", "lock", "-f", str(file))
    service.the_lock = {"r.io/other:1": OTHER}
    run("image", "lock", "-f", str(file))
    assert [image["ref"] for image in json.loads(lock.read_text())["images"]] == ["r.io/a/b:1", "r.io/other:1"]
    shown = run("image", "lock", "-f", str(file), "--prune", "--dry-run", "-o", "json")
    assert json.loads(shown.stdout)["items"] == [{"ref": "r.io/a/b:1", "old": DIGEST, "new": None}]
    assert len(json.loads(lock.read_text())["images"]) == 2
    run("image", "lock", "-f", str(file), "--prune")
    assert [image["ref"] for image in json.loads(lock.read_text())["images"]] == ["r.io/other:1"]


def test_a_folder_that_cannot_be_written_is_told(
    run: Run, service: FakeService, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("reconciler.cli.imagelock.write_atomic", full)
    done = run("image", "lock", "-f", str(file))
    assert done.exit_code == 1 and "Read-only file system" in done.stderr
    assert not (file.parent / "banger.lock").exists()


CATALOG = """\
apiVersion: banger/v1
kind: catalog
kernels: {k: {debian: {suite: bookworm}}}
images: {gold: {description: "ours \\e[2J", debian: {suite: bookworm}, kernel: k}}
"""


@pytest.fixture
def cataloged(file: Path) -> Path:
    (file.parent / "catalog.yaml").write_text(CATALOG)
    file.write_text(
        "{apiVersion: banger/v1, name: demo, catalogs: {team: {file: catalog.yaml}}, images: {a: {catalog: team/gold}}}"
    )
    return file


def test_catalogs_are_listed_with_and_without_a_file(run: Run, cataloged: Path) -> None:
    alone = run("image", "catalog", "-o", "name").stdout.split()
    assert alone == ["image/debian-12", "image/debian-13", "kernel/debian-12", "kernel/debian-13"]
    shown = run("image", "catalog", "-f", str(cataloged))
    assert "team/gold" in shown.stdout and "\x1b" not in shown.stdout
    items = json.loads(run("image", "catalog", "-f", str(cataloged), "-o", "json").stdout)["items"]
    (gold,) = [item for item in items if item["name"] == "team/gold"]
    assert (gold["type"], gold["kernel"], gold["source"], gold["locked"]) == ("image", "k", "Debian bookworm", False)
    nothing = run("image", "catalog", "-f", str(cataloged), "--update", "-o", "name")
    assert nothing.exit_code == 0 and "no catalog of this file comes from elsewhere" in nothing.stderr


def test_a_lock_has_what_the_entries_of_catalogs_say(run: Run, service: FakeService, cataloged: Path) -> None:
    service.the_lock = {}
    words = ("image", "lock", "-f", str(cataloged))
    first = run(*words, "-o", "json")
    assert [item["ref"] for item in json.loads(first.stdout)["items"]] == ["image team/gold", "kernel team/k"]
    lock = cataloged.parent / "banger.lock"
    before = lock.read_bytes()
    assert run(*words).stdout == "" and lock.read_bytes() == before
    (cataloged.parent / "catalog.yaml").write_text(
        CATALOG.replace("{debian: {suite: bookworm}}", "{debian: {suite: trixie}}")
    )
    (changed,) = json.loads(run(*words, "--dry-run", "-o", "json").stdout)["items"]
    assert changed["ref"] == "kernel team/k" and changed["old"] != changed["new"] and lock.read_bytes() == before
    cataloged.write_text("{apiVersion: banger/v1, name: demo}")
    run(*words)
    assert lock.read_bytes() == before
    run(*words, "--prune")
    assert "catalogs" not in json.loads(lock.read_text())
