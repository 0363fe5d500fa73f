"""What host tests share: one kernel and one image, built once per run of the tests."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.lib.paths import ImagePaths, KernelPaths, Paths, ToolsPaths
from reconciler.lib.progress import Silent
from reconciler.model.artifacts import GUEST_TOOLS, DebianImage, DebianKernel, Image, Kernel
from tests.host import images
from tests.host.home import Home

LONGEST = ("test_scale.py", "test_units.py", "test_repair.py", "test_lifecycle.py", "test_qemu.py", "test_endings.py")
"""Begun first: a file's tests stay in one of the workers, and the others should not have to wait for the last file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@dataclass(frozen=True)
class Artifacts:
    """A cache that has a kernel and an image."""

    cache: Path
    kernel: Kernel
    image: Image
    kernel_paths: KernelPaths
    image_paths: ImagePaths
    tools_paths: ToolsPaths

    def paths(self, home: Path) -> Paths:
        """A layout of its own below `home`, except that the cache is the shared one."""
        own = Paths.discover({"BANGER_HOME": str(home)})
        return Paths(own.state, self.cache, own.runtime, own.config)


@pytest.fixture(scope="session")
def artifact_cache(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """The shared cache, with `linux-image-cloud-amd64` and an image of no extra packages, both of bookworm.

    BANGER_TEST_CACHE names a folder that is kept between runs; else it is the run's own, which the workers of
    pytest-xdist share.
    """
    # Late: a test that needs no artifacts has no need of their drivers.
    from reconciler.drivers.guest import toolsdisk
    from reconciler.drivers.images.build import build
    from reconciler.drivers.kernels.fetch import fetch

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    cache = Path(os.environ.get("BANGER_TEST_CACHE") or shared / "artifact-cache")
    paths = Paths(shared, cache, shared, shared)
    kernel = Kernel(name="debian", source=DebianKernel(suite="bookworm", package="linux-image-cloud-amd64"))
    image = Image(name="base", source=DebianImage(suite="bookworm", packages=()), kernel="debian")
    fetch(kernel, paths, Silent())
    build(image, paths, Silent())
    toolsdisk.fetch(GUEST_TOOLS, paths, Silent())
    images.small(cache)
    return Artifacts(
        cache, kernel, image, paths.kernel(kernel.id), paths.image(image.id), paths.tools_disk(GUEST_TOOLS.id)
    )


@pytest.fixture
def home(artifact_cache: Artifacts, tmp_path: Path) -> Iterator[Home]:
    """A fresh BANGER_HOME with the shared cache; whatever it started is gone at the end."""
    made = Home(tmp_path / "home", artifact_cache.cache, f"t{secrets.token_hex(3)}")
    yield made
    made.destroy()
    assert made.vmms() == {}
    assert made.links() == {}
    assert made.tables() == []
    assert made.helpers() == []
    assert made.mounts() == []


@pytest.fixture(scope="session")
def subnet() -> Callable[[], str]:
    """Gives out CIDRs that no route of this host covers: two tests never share one, nor do two workers."""
    routes = json.loads(
        subprocess.run(["ip", "-j", "route", "show", "table", "all"], capture_output=True, check=True).stdout
    )
    taken = [ipaddress.ip_network(r["dst"], strict=False) for r in routes if "/" in r.get("dst", "")]
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    candidates = ipaddress.ip_network(f"172.29.{worker * 32}.0/19").subnets(new_prefix=24)

    def give() -> str:
        for candidate in candidates:
            if not any(net.version == 4 and net.overlaps(candidate) for net in taken):
                return str(candidate)
        raise AssertionError("no free subnet left")

    return give
