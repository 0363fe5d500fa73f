"""Choosing an accelerator, with the boot itself replaced by its results."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from reconciler.drivers.vmm import accel, tinyguest
from reconciler.drivers.vmm.backend import AcceleratorKind
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.run import CommandError, Completed


class FakeQemu:
    """Stands in for `run`: writes the guest's console, then ends as it is told."""

    def __init__(self, printed: bytes = b"", said: str = "", *, hangs: bool = False) -> None:
        self.printed, self.said, self.hangs = printed, said, hangs
        self.boots = 0
        self.problem: Exception | None = None

    def __call__(self, argv: list[str], *, timeout: float, check: bool) -> Completed:
        self.boots += 1
        assert timeout == accel.PROBE_SECONDS
        assert argv[argv.index("-accel") + 1] == "kvm"
        if self.problem:
            raise self.problem
        Path(argv[argv.index("-serial") + 1].removeprefix("file:")).write_bytes(self.printed)
        if self.hangs:
            raise CommandError("too long", argv, None, self.said, error_class=ErrorClass.RETRYABLE)
        return Completed(tuple(argv), 1, b"", self.said.encode())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host where /dev/kvm opens, with QEMU and a kernel."""
    monkeypatch.setattr(accel, "KVM", tmp_path / "kvm")
    for name in ("kvm", "vmlinux", "qemu"):
        (tmp_path / name).touch()
    monkeypatch.setattr(accel, "require", lambda program, package: str(tmp_path / "qemu"))
    monkeypatch.setattr(accel, "which", lambda program: str(tmp_path / "qemu"))
    return tmp_path


def boots(monkeypatch: pytest.MonkeyPatch, fake: FakeQemu) -> FakeQemu:
    monkeypatch.setattr(accel, "run", fake)
    return fake


def test_a_guest_that_speaks_proves_kvm(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boots(monkeypatch, FakeQemu(b"noise\r\n" + tinyguest.MARKER, hangs=True))
    assert accel.choose(host / "vmlinux", cache=host / "c").kind is AcceleratorKind.KVM


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        (FakeQemu(said="error: failed to set MSR 0x10a to 0x0\n"), "failed to set MSR 0x10a"),
        (FakeQemu(b"[0.1] Kernel panic - not syncing", hangs=True), "Kernel panic"),
        (FakeQemu(hangs=True), "silent for 3 s"),
        (FakeQemu(), "QEMU ended"),
    ],
)
def test_kvm_that_boots_nothing_is_not_chosen(
    host: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeQemu, words: str
) -> None:
    boots(monkeypatch, fake)
    chosen = accel.choose(host / "vmlinux", cache=host / "c")
    assert chosen.kind is AcceleratorKind.TCG
    assert words in chosen.reasons[0]
    with pytest.raises(BangerError, match="KVM does not work here"):
        accel.choose(host / "vmlinux", cache=host / "c", requested=AcceleratorKind.KVM)
    assert fake.boots == 1


def test_a_valid_result_is_neither_probed_nor_written_again(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = boots(monkeypatch, FakeQemu(hangs=True))
    first = accel.choose(host / "vmlinux", cache=host / "c")
    before = (host / "c").stat()
    again = accel.choose(host / "vmlinux", cache=host / "c")
    assert (again.kind, again.reasons) == (first.kind, first.reasons)
    assert fake.boots == 1
    assert (host / "c").stat() == before


@pytest.mark.parametrize("changed", ["vmlinux", "qemu"])
def test_another_kernel_or_qemu_is_another_question(host: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    fake = boots(monkeypatch, FakeQemu(hangs=True))
    accel.choose(host / "vmlinux", cache=host / "c")
    (host / changed).write_text("new")
    accel.choose(host / "vmlinux", cache=host / "c")
    assert fake.boots == 2
    assert len(json.loads((host / "c").read_text())["probes"]) == 2


def test_a_reboot_forgets(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = boots(monkeypatch, FakeQemu(hangs=True))
    accel.choose(host / "vmlinux", cache=host / "c")
    monkeypatch.setattr(accel, "boot_id", lambda: "another")
    accel.choose(host / "vmlinux", cache=host / "c")
    assert fake.boots == 2
    assert len(json.loads((host / "c").read_text())["probes"]) == 1


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"boot": 1}', b"\xff", b'{"probes": 3}'])
def test_a_damaged_record_remembers_nothing(host: Path, monkeypatch: pytest.MonkeyPatch, junk: bytes) -> None:
    (host / "c").write_bytes(junk)
    boots(monkeypatch, FakeQemu(tinyguest.MARKER))
    assert accel.choose(host / "vmlinux", cache=host / "c").kind is AcceleratorKind.KVM
    assert json.loads((host / "c").read_text())["probes"]


def test_what_was_interrupted_is_not_remembered(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = boots(monkeypatch, FakeQemu(tinyguest.MARKER))
    fake.problem = CancelledError()
    with pytest.raises(CancelledError):
        accel.choose(host / "vmlinux", cache=host / "c")
    assert not (host / "c").exists()


def test_tcg_on_request_boots_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = boots(monkeypatch, FakeQemu())
    assert accel.choose(host / "vmlinux", cache=host / "c", requested=AcceleratorKind.TCG).kind.emulated
    assert fake.boots == 0


def test_no_device_and_no_permission_need_no_boot(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = boots(monkeypatch, FakeQemu())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "group kvm" in accel.choose(host / "vmlinux", cache=host / "c").reasons[0]
    (host / "kvm").unlink()
    assert "there is no" in accel.choose(host / "vmlinux", cache=host / "c").reasons[0]
    assert fake.boots == 0


def test_a_missing_kernel_is_an_error(host: Path) -> None:
    with pytest.raises(BangerError, match="cannot probe the accelerator"):
        accel.choose(host / "none", cache=host / "c")


def test_explain_ends_with_the_choice(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boots(monkeypatch, FakeQemu(said="no such MSR"))
    checks = accel.explain(host / "vmlinux", cache=host / "c")
    assert [(check.name, check.ok) for check in checks] == [
        ("qemu", True),
        ("kvm device", True),
        ("kvm boots a guest", False),
        ("accelerator", True),
    ]
    assert checks[-1].reason == "tcg"
    assert "no such MSR" in checks[2].reason
    assert accel.explain(None, cache=host / "c")[-1].reason.startswith("not tried")
    monkeypatch.setattr(accel, "which", lambda program: None)
    assert [check.ok for check in accel.explain(None, cache=host / "c")] == [False]


def test_the_tiny_guest_is_one_program_in_an_archive() -> None:
    archive = tinyguest.initramfs()
    assert archive.startswith(b"070701")
    assert len(archive) % 4 == 0
    elf = archive[archive.index(b"\x7fELF") :]
    entry = struct.unpack_from("<Q", elf, 24)[0]
    code = elf[entry - 0x400000 :]
    # The operand of `mov esi, message` leads to the marker.
    assert elf[struct.unpack_from("<I", code, 8)[0] - 0x400000 :].startswith(tinyguest.MARKER + b"\n")
