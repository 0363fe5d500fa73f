"""Variables and secrets: each program reads what was said, and secrets stay in memory and out of what is said."""

from __future__ import annotations

import subprocess

import pytest

from reconciler.drivers.guest import settings
from reconciler.lib.errors import BangerError
from reconciler.model.inside import Secret, Variable
from tests.fakes.guestroot import Root, root_fixture

__all__ = ["root_fixture"]

ODD = 'it\'s a \\ "value" $(x) `y` #z %n ü=, \\\' \\" {a,b}*'
TOKEN = Secret(name="TOKEN", env="CI_TOKEN")
NETRC = Secret(name="NETRC", file="/x", guest="/root/.netrc", mode=0o440)


def test_a_shell_reads_it_as_it_was_said() -> None:
    text = settings.shell([("A", ODD), ("B", "")])
    done = subprocess.run(["sh", "-c", f'{text}\nprintf "%s|%s" "$A" "$B"'], capture_output=True, text=True, check=True)
    assert done.stdout == f"{ODD}|"


def test_sshd_is_told_nothing_if_there_is_nothing() -> None:
    assert settings.sshd([]) == ""


def test_systemd_is_told_no_specifier() -> None:
    assert settings.manager([("A", 'x%h "y" \\')]) == '[Manager]\nDefaultEnvironment="A=x%%h \\"y\\" \\\\"\n'


def deliver(root: Root, *values: tuple[Secret, bytes]) -> None:
    settings.deliver(root, (Variable(name="LANG", value="C"),), values)


def test_secrets_lie_in_memory_with_their_modes(root: Root) -> None:
    deliver(root, (TOKEN, b"hunter2\n"), (NETRC, b"a\nb\n"))
    folder = root.path("/run/banger/secrets")
    assert {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        "TOKEN": (b"hunter2\n", 0o600),
        "NETRC": (b"a\nb\n", 0o440),
    }
    assert folder.stat().st_mode & 0o777 == 0o711
    assert root.path("/run/banger/env").read_text() == "LANG=C\n"
    assert root.path("/run/banger/env.secret").read_text() == "TOKEN=hunter2\n"
    assert root.path("/run/banger/sshd-env.conf").read_text() == 'SetEnv "LANG=C" "TOKEN=hunter2"\n'
    for name in ("env.secret", "sshd-env.conf"):
        assert root.path(f"/run/banger/{name}").stat().st_mode & 0o777 == 0o600
    outside = [p for p in root.folder.rglob("*") if p.is_file() and not p.is_relative_to(root.path("/run"))]
    assert not [path for path in outside if b"hunter2" in path.read_bytes()]


def test_what_is_no_longer_asked_for_is_gone(root: Root) -> None:
    deliver(root, (TOKEN, b"hunter2"), (NETRC, b"x"))
    deliver(root)
    assert not [p for p in root.path("/run/banger").rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
    assert list(root.path("/run/banger/secrets").iterdir()) == []


def test_an_owner_that_is_not_there_is_told_and_changes_nothing(root: Root) -> None:
    deliver(root, (TOKEN, b"hunter2"))
    with pytest.raises(BangerError, match="secret TOKEN: there is no nobody-here:x") as caught:
        deliver(root, (Secret(name="TOKEN", env="X", owner="nobody-here:x"), b"hunter3"))
    assert "hunter" not in str(caught.value)
    assert root.path("/run/banger/secrets/TOKEN").read_bytes() == b"hunter2"
    assert not root.path("/run/banger/settings.new").exists()


@pytest.mark.parametrize("value", [b"two\nlines", b"\xff\xfe", b"a\tb\0"])
def test_what_can_be_no_variable_is_refused_and_not_shown(root: Root, value: bytes) -> None:
    with pytest.raises(BangerError, match="secret TOKEN is not one line of text") as caught:
        deliver(root, (TOKEN, value))
    assert "lines" not in f"{caught.value} {caught.value.hint}"
