"""What the config disk brings of an image's entrypoint, and of what runs in every guest."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.drivers.guest import services
from reconciler.drivers.guest.entrypoint import APPLETS, DEFAULT_PATH, Entrypoint
from reconciler.lib.errors import BangerError

# What no quoting of less than everything survives.
ODD = "a b'c\"d$e`f`\\g\n*;#é"


def test_a_config_as_images_have_it() -> None:
    config = {
        "entrypoint": ["/bin/serve", "--port"],
        "cmd": ["80"],
        "env": ["PATH=/opt/bin", "EMPTY=", "EQUAL=a=b", "odd.name=x", "1st=x"],
        "user": "app:web",
        "workdir": "srv",
        "stopSignal": "SIGQUIT",
        "ports": ["80/tcp"],
        "labels": {"a": "b"},
    }
    assert Entrypoint.of_config(config) == Entrypoint(
        argv=("/bin/serve", "--port", "80"),
        env=(("PATH", "/opt/bin"), ("EMPTY", ""), ("EQUAL", "a=b")),
        user="app:web",
        workdir="/srv",
        stop_signal="QUIT",
    )


@pytest.mark.parametrize("config", [{}, {"entrypoint": None, "cmd": None, "env": None, "user": None, "workdir": ""}])
def test_what_is_missing_is_as_it_is_by_default(config: dict[str, Any]) -> None:
    assert Entrypoint.of_config(config) == Entrypoint()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entrypoint", "/bin/sh"),
        ("cmd", [1]),
        ("env", ["A=\0"]),
        ("user", "a\nb"),
        ("user", 0.5),
        ("workdir", "/a\x1b[31m"),
        ("stopSignal", "SIG TERM; reboot"),
        ("stopSignal", "-9"),
    ],
)
def test_what_no_program_can_be_started_with_is_said(key: str, value: object) -> None:
    with pytest.raises(BangerError, match=f"unusable {key}"):
        Entrypoint.of_config({key: value})


def test_the_shell_reads_every_value_as_it_was(tmp_path: Path) -> None:
    files = Entrypoint(argv=("/app", ODD, ""), env=(("ODD", ODD),), user=ODD, workdir=f"/{ODD}").files()
    for name in ("environment", "service"):
        (tmp_path / name).write_text(files[f"banger/image/{name}"][0])
    script = '. ./environment; . ./service; printf "%s\\0" "$ODD" "$PATH" "$user" "$workdir" "$#" "$@"'
    done = subprocess.run(["busybox", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    path = f"{DEFAULT_PATH}:{APPLETS}"
    assert done.stdout.split("\0")[:-1] == [ODD, path, ODD, f"/{ODD}", "3", "/app", ODD, ""]


def test_an_image_that_is_for_nothing_has_no_service() -> None:
    files, links = services.files(Entrypoint()), services.links(Entrypoint())
    assert "banger/image/service" not in files and not any("entrypoint" in name for name in (*files, *links))
    assert {"banger/agent", "banger/sshd", "banger/supervise", "banger/image/environment"} <= set(files)
    assert all(target.removeprefix("../") in {name.rpartition("/")[2] for name in files} for target in links.values())


@pytest.mark.parametrize(("signal", "line"), [("QUIT", "KillSignal=SIGQUIT"), ("37", "KillSignal=37")])
def test_a_unit_ends_it_by_the_images_own_signal(signal: str, line: str) -> None:
    unit, _ = services.files(Entrypoint(argv=("/app",), stop_signal=signal))["systemd/system/banger-entrypoint.service"]
    assert line in unit.splitlines()


@pytest.mark.parametrize(("program", "is_init"), [("/init", True), ("/sbin/init", True), ("/usr/bin/initdb", False)])
def test_an_entrypoint_that_is_an_init_is_told_from_others(program: str, is_init: bool) -> None:
    assert ("banger/image/is-init" in Entrypoint(argv=(program,)).files()) is is_init
