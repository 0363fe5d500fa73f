"""The rate that emulated guests are told is the one at which this host's counter ticks."""

from __future__ import annotations

import mmap
import platform
from pathlib import Path

import pytest

from reconciler.drivers.vmm import accel, tsc
from reconciler.drivers.vmm.backend import AcceleratorKind

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the counter of an x86 processor")


@x86
def test_two_measurements_agree() -> None:
    first, second = tsc.host_tsc_khz(), tsc.host_tsc_khz()
    assert first is not None and second is not None
    assert 200_000 < first < 20_000_000
    # A guest's clock may be wrong by a second in a quarter of an hour before anything in it minds.
    assert first == pytest.approx(second, rel=1e-3)


def test_where_it_cannot_be_read_the_guest_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert tsc.host_tsc_khz() is None


def test_a_chosen_tcg_knows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accel, "require", lambda program, package: program)
    monkeypatch.setattr(accel, "host_tsc_khz", lambda: 2_596_138)
    monkeypatch.setattr(accel, "KVM", tmp_path / "no-such-device")
    for requested in (None, AcceleratorKind.TCG):
        chosen = accel.choose(tmp_path / "vmlinux", cache=tmp_path / "cache", requested=requested)
        assert (chosen.kind, chosen.tsc_khz) == (AcceleratorKind.TCG, 2_596_138)
