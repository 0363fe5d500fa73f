"""The initramfs: same inputs, same file; anything that could not boot is refused before a VM is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from reconciler.drivers.guest import initramfs
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import KernelPaths

SCRIPT = resources.files("reconciler.drivers.guest") / "init.sh"
IMAGE = SCRIPT.with_name("image.sh")
SERVICES = sorted(SCRIPT.parent.glob("scripts/*.sh"))


@pytest.fixture
def kernel(tmp_path: Path) -> KernelPaths:
    paths = KernelPaths(tmp_path / "kernel")
    paths.early_modules.mkdir(parents=True)
    (paths.early_modules / "01-virtio.ko").write_bytes(b"second")
    (paths.early_modules / "00-virtio_ring.ko").write_bytes(b"first!!")
    return paths


def test_holds_what_the_boot_needs_in_load_order(kernel: KernelPaths, tmp_path: Path) -> None:
    path = initramfs.ensure(kernel, tmp_path / "out")
    with path.open("rb") as file:
        listing = subprocess.run(["cpio", "-itv", "--quiet"], stdin=file, capture_output=True, text=True, check=True)
    lines = listing.stdout.splitlines()
    names = [line.split()[-1] if " -> " not in line else line.split()[-3] for line in lines]
    assert {line.split()[2] for line in lines} == {"root"}
    assert [name for name in names if name.startswith("modules/")] == [
        "modules/00-virtio_ring.ko",
        "modules/01-virtio.ko",
    ]
    assert {"init", "bin/busybox", "dev/console", "newroot", "bin/mount"} <= set(names)


def test_content_survives(kernel: KernelPaths, tmp_path: Path) -> None:
    path = initramfs.ensure(kernel, tmp_path / "out")
    for name, content in [("modules/00-virtio_ring.ko", b"first!!"), ("init", SCRIPT.read_bytes())]:
        with path.open("rb") as file:
            got = subprocess.run(
                ["cpio", "-i", "--quiet", "--to-stdout", name], stdin=file, capture_output=True, check=True
            )
        assert got.stdout == content


def test_same_inputs_are_the_same_file_and_are_not_written_again(kernel: KernelPaths, tmp_path: Path) -> None:
    first = initramfs.ensure(kernel, tmp_path / "out")
    before = first.stat()
    assert initramfs.ensure(kernel, tmp_path / "out") == first
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    elsewhere = initramfs.ensure(kernel, tmp_path / "elsewhere")
    assert (elsewhere.name, elsewhere.read_bytes()) == (first.name, first.read_bytes())


def test_another_module_is_another_file(kernel: KernelPaths, tmp_path: Path) -> None:
    first = initramfs.ensure(kernel, tmp_path / "out")
    (kernel.early_modules / "01-virtio.ko").write_bytes(b"newer")
    assert initramfs.ensure(kernel, tmp_path / "out") != first


def test_a_dynamic_busybox_is_refused(kernel: KernelPaths, tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="not a statically linked program") as caught:
        initramfs.ensure(kernel, tmp_path / "out", busybox=Path("/bin/ls"))
    assert caught.value.hint == "apt-get install busybox-static"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02" + bytes(27) + b"\xff" * 64])
def test_what_is_no_program_is_refused(kernel: KernelPaths, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "busybox").write_bytes(content)
    with pytest.raises(BangerError, match="not a statically linked program"):
        initramfs.ensure(kernel, tmp_path / "out", busybox=tmp_path / "busybox")


def test_a_missing_busybox_names_its_package(kernel: KernelPaths, tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        initramfs.ensure(kernel, tmp_path / "out", busybox=tmp_path / "none")
    assert caught.value.hint == "apt-get install busybox-static"


def test_a_kernel_without_early_modules_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="cannot read the kernel's modules"):
        initramfs.ensure(KernelPaths(tmp_path / "none"), tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_an_error(kernel: KernelPaths, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(BangerError, match="cannot write the initramfs"):
        initramfs.ensure(kernel, tmp_path / "out")


@pytest.mark.parametrize("script", [SCRIPT, IMAGE, *SERVICES], ids=lambda script: script.name)
def test_the_scripts_parse(script: Path) -> None:
    subprocess.run(["busybox", "sh", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    # SC3013: busybox's test has -ef. SC2154, SC2086: init.sh has what image.sh uses, and $NEW has no spaces. SC1091: written
    # by the host for each guest.
    for script, but in (
        (SCRIPT, ()),
        (IMAGE, ("SC3013", "SC2154", "SC2086")),
        *((script, ("SC1091",)) for script in SERVICES),
    ):
        exclude = ["-e", ",".join(but)] if but else []
        subprocess.run(["shellcheck", "-s", "dash", *exclude, str(script)], check=True)


def test_every_program_of_the_init_is_linked() -> None:
    text = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#"))
    applets = set(subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split())
    builtins = {"[", "test", "printf", "read", "echo", "true", "false", "sh"}
    called = set(re.findall(r"(?:must|exec) ([a-z_]+)", text)) | set(
        re.findall(r"(?:^|\|\|)\s*([a-z_]+) ", text, re.MULTILINE)
    )
    called &= applets
    assert called - builtins <= set(initramfs._APPLETS)
    assert "mount" in called


def test_nothing_is_evaluated_and_no_value_is_left_to_the_command_line() -> None:
    text = SCRIPT.read_text() + IMAGE.read_text()
    assert not re.search(r"\beval\b|/proc/cmdline|^\s*\. (?!/image.sh$)", text, re.MULTILINE)
    assert os.access("/bin/busybox", os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_guest_that_makes_images_is_clean() -> None:
    subprocess.run(["shellcheck", "-s", "dash", str(SCRIPT.with_name("make.sh"))], check=True)
