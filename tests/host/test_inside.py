"""What the file asks for inside of a guest, in one VM that lives through this whole file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import Artifacts
from tests.host.home import Home

pytestmark = pytest.mark.host

ODD = 'it\'s a \\ "value" $(x) `y` #z %n ü=, \\\' \\" {a,b}*'
FIRST, SECOND, NETRC = (f"value-{secrets.token_hex(16)}" for _ in range(3))
"""Values of secrets, which are to be found nowhere."""


class Lived:
    """A VM `dev`, and the fields that its file gives it."""

    def __init__(self, home: Home, netrc: Path) -> None:
        self.home = home
        self.netrc = netrc
        self.fields: dict[str, Any] = {"image": "base", "ready": {"timeout": "300s"}}

    def apply(self, **fields: Any) -> str:
        """Edits the file, converges, and makes sure that nothing is left to do. Returns what was said."""
        self.fields |= fields
        self.home.write({"dev": {key: value for key, value in self.fields.items() if value is not None}})
        said = self.home.run("apply", "--yes").stderr
        assert self.home.planned() == []
        return said

    def sh(self, script: str) -> str:
        return self.home.exec("dev", "sh", "-c", script)


@pytest.fixture(scope="module")
def dev(artifact_cache: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    home = Home(
        tmp_path_factory.mktemp("inside"),
        artifact_cache.cache,
        f"t{secrets.token_hex(3)}",
        extra={"CI_TOKEN": FIRST},
    )
    dots = home.root / "dots"
    (dots / ".config/app").mkdir(parents=True)
    (dots / ".config/app/conf").write_text("one\n")
    (dots / ".vimrc").write_text("set nu\n")
    (dots / ".vimrc").chmod(0o600)
    (dots / "shadow").symlink_to("/etc/shadow")
    (tmp_path_factory.mktemp("outside") / "netrc").write_text(f"machine x password {NETRC}\n")
    (home.root / "setup.sh").write_text("#!/bin/bash\necho script $BASH_VERSINFO >>/root/done\n")
    lived = Lived(home, tmp_path_factory.getbasetemp() / "outside0" / "netrc")
    lived.apply(
        env={"APP": ODD, "EMPTY": ""},
        secrets={
            "TOKEN": {"env": "CI_TOKEN"},
            "NETRC": {"file": str(lived.netrc), "guest": "/root/.netrc", "mode": "0640", "owner": "root:daemon"},
        },
        provision=[
            {"run": "echo one >>/root/done; cat /srv/data/on-volume >>/root/done; set -x; : $TOKEN"},
            {"script": "setup.sh"},
            {"run": "echo start >>/root/starts", "once": False},
        ],
        volumes={"data": {"size": "64MiB", "mount": "/srv/data"}},
        files=[
            {"guest": "/etc/motd", "content": "hello\n"},
            {"guest": "/root", "host": "dots"},
            {"guest": "/srv/data/on-volume", "content": "v", "owner": "daemon", "mode": "0640"},
            {
                "guest": "/etc/systemd/system/seen.service",
                "content": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'printenv APP >/run/seen; printenv TOKEN >>/run/seen || echo none >>/run/seen'\n",
            },
            {
                "guest": "/etc/systemd/system/sysinit.target.d/seen.conf",
                "content": "[Unit]\nWants=seen.service\n",
            },
        ],
    )
    yield lived
    home.destroy()
    assert home.vmms() == {}


def test_files_are_there_before_the_init(dev: Lived) -> None:
    assert dev.sh("cat /etc/motd /run/seen") == f"hello\n{ODD}\nnone"
    assert dev.sh("stat -c '%a %U:%G' /root/.vimrc /srv/data/on-volume /root/.config/app").splitlines() == [
        "600 root:root",
        "640 daemon:daemon",
        "755 root:root",
    ]
    assert dev.sh("readlink /root/shadow") == "/etc/shadow"
    assert dev.sh("cat /run/banger/files.log") == ""


def test_variables_and_secrets_are_in_every_session(dev: Lived) -> None:
    assert dev.sh("printenv APP TOKEN") == f"{ODD}\n{FIRST}"
    assert dev.sh('echo "is ${EMPTY-not there}"') == "is"
    assert dev.sh("cat /root/.netrc; readlink /root/.netrc") == (
        f"machine x password {NETRC}\n/run/banger/secrets/NETRC"
    )
    assert dev.sh("stat -L -c '%a %U:%G' /root/.netrc; findmnt -no FSTYPE -T /run/banger/secrets") == (
        "640 root:daemon\ntmpfs"
    )
    assert dev.sh("printenv NETRC || echo none") == "none"


def test_work_was_done_in_order_when_all_was_there(dev: Lived) -> None:
    assert dev.sh("cat /root/done /root/starts") == "one\nvscript 5\nstart"
    said = dev.home.run("logs", "dev", "--provision").stdout
    assert "-- step 1: echo one" in said and "-- step 3: echo start" in said
    assert "+ : ***" in said and FIRST not in said


def test_a_step_that_is_new_or_edited_is_done_and_no_other(dev: Lived) -> None:
    (dev.home.root / "setup.sh").write_text("echo edited >>/root/done\n")
    assert dev.home.planned() == ["provision vm/dev"]
    dev.apply(provision=[*dev.fields["provision"], {"run": "echo new >>/root/done"}])
    assert dev.sh("cat /root/done /root/starts") == "one\nvscript 5\nedited\nnew\nstart"


def test_a_step_that_fails_is_told_with_its_last_words_and_tried_again(dev: Lived) -> None:
    steps = dev.fields["provision"]
    failing = {"run": "echo now it breaks; test -e /root/mended"}
    dev.home.write({"dev": dev.fields | {"provision": [*steps, failing]}})
    failed = dev.home.run("apply", "--yes", check=False)
    assert failed.returncode == 1
    assert (
        "provision step 5 (echo now it breaks; test -e /root/mended) failed with exit code 1: now it breaks"
        in failed.stderr
    )
    dev.sh("touch /root/mended")
    dev.apply(provision=[*steps, failing])


def test_another_value_is_a_difference_that_is_brought_in_without_a_restart(dev: Lived) -> None:
    booted = dev.sh("cat /proc/sys/kernel/random/boot_id")
    dev.home = replace(dev.home, extra={"CI_TOKEN": SECOND})
    assert dev.home.planned() == ["configure vm/dev"]
    dev.apply(env={"APP": "other"})
    assert dev.sh("printenv APP TOKEN") == f"other\n{SECOND}"
    assert dev.sh("cat /proc/sys/kernel/random/boot_id") == booted


def test_a_secret_that_is_missing_stops_everything_before_it_begins(dev: Lived) -> None:
    without = replace(dev.home, extra={})
    failed = without.run("apply", "--yes", check=False)
    assert failed.returncode == 1
    assert "secret TOKEN: the variable CI_TOKEN is not set where banger runs" in failed.stderr
    assert dev.sh("printenv TOKEN") == SECOND


def test_an_edit_on_the_host_or_of_the_file_is_written_without_a_restart(dev: Lived) -> None:
    booted = dev.sh("cat /proc/sys/kernel/random/boot_id")
    (dev.home.root / "dots/.config/app/conf").write_text("two\n")
    (dev.home.root / "dots/.vimrc").unlink()
    assert dev.home.planned() == ["configure vm/dev"]
    dev.sh("echo mine >>/etc/motd")
    said = dev.apply(files=[*dev.fields["files"][1:], {"guest": "/opt/new/x", "content": "x\n"}])
    assert "kept /etc/motd: it was changed in the guest" in said
    assert dev.sh("cat /root/.config/app/conf /opt/new/x; ls -A /root").split() == [
        *("two", "x"),
        *(".bashrc", ".config", ".netrc", ".profile", ".ssh", "done", "mended", "shadow", "starts"),
    ]
    assert dev.sh("cat /etc/motd") == "hello\nmine"
    assert dev.sh("cat /proc/sys/kernel/random/boot_id") == booted


def test_a_file_that_cannot_be_written_is_an_error_that_says_why(dev: Lived) -> None:
    dev.home.write({"dev": dev.fields | {"files": [{"guest": "/etc/x", "content": "x", "owner": "nobody-here"}]}})
    failed = dev.home.run("apply", "--yes", check=False)
    assert failed.returncode == 1
    assert "/etc/x: it cannot be written for nobody-here:nobody-here" in failed.stderr
    dev.apply()


def test_what_left_while_the_vm_was_stopped_is_gone_when_it_runs(dev: Lived) -> None:
    dev.home.run("vm", "stop", "dev")
    dev.apply(files=[{"guest": "/etc/issue", "content": "ours\n"}])
    assert dev.sh("cat /etc/issue; ls /opt /srv/data") == "ours\n/opt:\n\n/srv/data:\nlost+found"
    dev.apply(files=None)
    assert dev.sh("cat /etc/issue").startswith("Debian")


def test_no_value_of_a_secret_is_anywhere_on_the_host(dev: Lived) -> None:
    done = dev.sh("cat /root/done")
    dev.home.run("vm", "restart", "dev")
    assert dev.sh("printenv TOKEN") == SECOND
    assert dev.sh("cat /root/done; wc -l </root/starts").split("\n") == [*done.split("\n"), "3"]
    dev.sh("sync")
    home = dev.home
    said = [home.run(*words).stdout for words in (("plan", "-o", "json"), ("status", "-o", "json"), ("events",))]
    said += [path.read_bytes().decode("utf-8", "replace") for pid in home.vmms() for path in process(pid)]
    assert '"TOKEN"' in said[1]
    home.run("delete", home.environment, "--yes")
    values = [value.encode() for value in (FIRST, SECOND, NETRC)]
    assert not [text for text in said if any(value.decode() in text for value in values)]
    files = [path for path in home.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "overlay.ext4" for path in files) and any(path.name == "console.log" for path in files)
    assert [path for path in files if holds(path, values)] == []


def process(pid: int) -> list[Path]:
    return [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]


def holds(path: Path, values: list[bytes]) -> bool:
    """Whether a file has one of these, also where it is as large as a disk."""
    rest = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            if any(value in rest + piece for value in values):
                return True
            rest = piece[-64:]
    return False
