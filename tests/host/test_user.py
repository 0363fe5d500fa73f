"""A user without root: everything with `network: user`, and a clear word about bridges."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import Artifacts

pytestmark = pytest.mark.host

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def user() -> Iterator[pwd.struct_passwd]:
    """A fresh account with its range of subordinate ids, removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make another user")
    name = f"bg{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        while subprocess.run(["pgrep", "-u", name], capture_output=True, check=False).returncode == 0:
            pass
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)
        shutil.rmtree(f"/home/{name}", ignore_errors=True)


def test_a_normal_user_boots_a_vm_without_root(user: pwd.struct_passwd, artifact_cache: Artifacts) -> None:
    home = Path(user.pw_dir)
    # Python and the package where that user can read them, whatever the test run's own folders allow.
    subprocess.run(["cp", "-r", PROJECT / "reconciler", PROJECT / "schemas", home], check=True)
    packages = home / "packages"
    import yaml as any_dependency

    shutil.copytree(Path(any_dependency.__file__).parent.parent, packages, symlinks=True)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", home], check=True)

    become = ["setpriv", f"--reuid={user.pw_name}", f"--regid={user.pw_gid}", "--init-groups", "--"]

    def banger(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*become, "/usr/bin/python3", "-m", "reconciler", *words],
            env={
                "HOME": str(home),
                "USER": user.pw_name,
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": f"{home}:{packages}",
                "LANG": "C.UTF-8",
            },
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    # The cache as if this user had built it: building as a normal user has a test of its own. Only what is needed of
    # the other, which further tests are filling.
    cache = home / ".cache" / "banger"
    for made in (artifact_cache.kernel_paths.root, artifact_cache.image_paths.root):
        place = cache / made.relative_to(artifact_cache.cache)
        place.parent.mkdir(parents=True)
        subprocess.run(["cp", "-r", made, place], check=True)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", home / ".cache"], check=True)

    base = "apiVersion: banger/v1\nname: mine\nkernels: {debian: {debian: {suite: bookworm}}}\n"
    base += "images: {base: {debian: {suite: bookworm, packages: []}, kernel: debian}}\n"
    (home / "banger.yaml").write_text(base + "vms: {dev: {image: base, volumes: {d: {size: 64MiB, mount: /d}}}}\n")
    done = banger("apply")
    assert done.returncode == 0, done.stderr
    assert banger("exec", "dev", "--", "id", "-un").stdout == "root\n"
    assert banger("exec", "dev", "--", "stat", "-c", "%u %U", "/", "/d", "/root").stdout.split() == ["0", "root"] * 3

    (home / "banger.yaml").write_text(
        base + "networks: {lab: {cidr: 172.29.250.0/24}}\nvms: {dev: {image: base, network: lab}}\n"
    )
    refused = banger("apply")
    assert refused.returncode == 1
    assert "root helper" in refused.stderr
    for way_out in ("sudo", "banger-helper.socket", "network: user"):
        assert way_out in refused.stderr
    assert banger("delete", "mine", "--yes").returncode in (0, 1)
