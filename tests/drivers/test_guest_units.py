"""What banger adds to a guest's systemd: scripts without surprises, and links that lead somewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from reconciler.drivers.guest import units

SCRIPTS = [name for name, (text, _) in units.files().items() if text.startswith("#!/run/banger/busybox sh\n")]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_clean_and_can_be_run(name: str, tmp_path: Path) -> None:
    text, mode = units.files()[name]
    (tmp_path / "script").write_text(text)
    subprocess.run(["shellcheck", "-s", "dash", tmp_path / "script"], check=True)
    assert mode == 0o755


def test_each_link_leads_to_a_unit_of_ours() -> None:
    for name, target in units.links().items():
        folder = PurePosixPath(name).parent
        assert target.startswith("../")
        assert str(folder.parent / target.removeprefix("../")) in units.files()


def test_the_rule_and_the_units_name_what_is_there() -> None:
    files = units.files()
    assert units.GROW_UNIT in files["udev/rules.d/80-banger.rules"][0]
    assert "ExecStart=/run/banger/disks/grow\n" in files[f"systemd/system/{units.GROW_UNIT}"][0]
    assert "banger/disks/grow" in files
