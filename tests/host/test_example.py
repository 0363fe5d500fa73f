"""The shipped example does what its first lines promise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.host.home import Home

pytestmark = pytest.mark.host

EXAMPLE = Path(__file__).parents[2] / "banger.yaml.example"


def test_the_example_boots_as_it_is(home: Home) -> None:
    shutil.copy(EXAMPLE, home.file)
    home.environment = "demo"
    done = home.run("apply", timeout=600)
    assert "ssh dev" in done.stderr
    assert home.items()["vm/dev"]["ready"] is True
    assert home.exec("dev", "sh", "-c", "git --version >/dev/null && curl --version >/dev/null && df /data | tail -1")
    assert home.planned() == []
