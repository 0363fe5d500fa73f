"""A repository goes to a real VM and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Artifacts
from tests.host.home import Home
from tests.workspace.places import Place

pytestmark = pytest.mark.host

IMAGES = {"git": {"debian": {"suite": "bookworm", "packages": ["git"]}, "kernel": "debian"}}


@pytest.fixture(scope="module")
def dev(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A VM with a workspace, and a file beside it that is its repository's."""
    home = Home(tmp_path_factory.mktemp("ws") / "home", artifact_cache.cache, "wsenv")
    repository = Place(home.root / "src")
    repository.root.mkdir()
    repository.git("init", "-q", "-b", "main")
    repository.git("config", "user.name", "Host")
    repository.git("config", "user.email", "host@example.org")
    repository.write("a.txt", "one\n")
    repository.commit("first")
    repository.write("a.txt", "two\n")
    vm = {"image": "git", "ready": {"timeout": "5m"}, "workspace": {"host": "src", "guest": "/root/repo"}}
    home.write({"dev": vm}, images=IMAGES)
    try:
        home.run("apply", timeout=900)
        yield home
    finally:
        home.destroy()
    assert home.vmms() == {}
    assert home.helpers() == []


def test_it_is_there_when_the_vm_is_ready_and_no_plan_asks_for_it_again(dev: Home) -> None:
    assert dev.exec("dev", "cat", "/root/repo/a.txt") == "two"
    assert dev.exec("dev", "git", "-C", "/root/repo", "status", "--short") == "M a.txt"
    assert dev.planned() == []
    (item,) = json.loads(dev.run("workspace", "status", "-o", "json").stdout)["items"]
    assert (item["state"], item["stale"], item["host"]["changes"]) == ("same", False, 1)


def test_a_commit_of_the_guest_comes_back_with_its_id(dev: Home) -> None:
    repository = Place(dev.root / "src")
    made = dev.exec("dev", "sh", "-c", "cd /root/repo; echo g >g; git add g; git commit -qm guest; git rev-parse HEAD")
    dev.run("workspace", "pull", "dev")
    assert repository.git("rev-parse", "banger/dev") == made
    repository.write("a.txt", "three\n")
    refused = dev.run("workspace", "push", "dev", check=False)
    assert refused.returncode == 1
    assert "added g" in refused.stderr
    repository.git("merge", "-q", "--ff-only", "banger/dev")
    dev.run("workspace", "push", "dev")
    assert dev.exec("dev", "cat", "/root/repo/g", "/root/repo/a.txt") == "g\nthree"


def test_a_command_says_that_the_copy_is_old_or_brings_it_up_to_date(dev: Home) -> None:
    Place(dev.root / "src").write("a.txt", "fresh\n")
    warned = dev.run("exec", "dev", "--", "cat", "/root/repo/a.txt")
    assert "--sync" in warned.stderr and warned.stdout != "fresh\n"
    assert dev.run("exec", "--sync", "dev", "--", "cat", "/root/repo/a.txt").stdout == "fresh\n"
    assert "--sync" not in dev.run("exec", "dev", "--", "true").stderr


def test_work_of_the_guest_is_refused_with_a_word(dev: Home) -> None:
    repository = Place(dev.root / "src")
    dev.exec("dev", "sh", "-c", "echo guest >/root/repo/a.txt")
    repository.write("a.txt", "four\n")
    refused = dev.run("workspace", "push", "dev", check=False)
    assert refused.returncode == 1
    assert "changed a.txt" in refused.stderr and "banger workspace pull dev" in refused.stderr
    assert dev.exec("dev", "cat", "/root/repo/a.txt") == "guest"
    patch = dev.run("workspace", "pull", "--patch", "-", "dev").stdout
    assert "+guest" in patch
    dev.run("workspace", "push", "--force", "dev")
    assert dev.exec("dev", "cat", "/root/repo/a.txt") == "four"


def test_an_image_without_git_says_so(dev: Home) -> None:
    dev.run("exec", "dev", "--", "mv", "/usr/bin/git", "/usr/bin/git.away")
    Path(dev.root / "src" / "a.txt").write_text("five\n")
    refused = dev.run("workspace", "push", "dev", check=False)
    assert refused.returncode == 1
    assert "the guest has no git" in refused.stderr
