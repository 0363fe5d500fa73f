"""ssh: the argument list, what ssh itself makes of it, and the keys."""

from __future__ import annotations

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.drivers.guest import keys
from reconciler.drivers.guest.ssh import ssh_argv
from reconciler.lib.errors import BangerError


def argv(folder: Path = Path("/var/lib/banger"), **more: object) -> list[str]:
    return ssh_argv(
        host="127.0.0.1",
        port=2222,
        key=folder / "id",
        known_hosts=folder / "known_hosts",
        alias="web-1.demo.vm",
        **more,  # type: ignore[arg-type]
    )


def understood(words: list[str]) -> dict[str, str]:
    """The settings as ssh understood them."""
    text = subprocess.run([words[0], "-G", *words[1:]], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_exactly() -> None:
    assert argv(command=["echo", "a b"], tty=False) == shlex.split(
        "ssh -F none -p 2222 -l root -T"
        " -o 'IdentityFile=\"/var/lib/banger/id\"' -o IdentitiesOnly=yes -o IdentityAgent=none"
        " -o PreferredAuthentications=publickey -o BatchMode=yes -o StrictHostKeyChecking=yes"
        " -o 'UserKnownHostsFile=\"/var/lib/banger/known_hosts\"' -o GlobalKnownHostsFile=/dev/null"
        " -o HostKeyAlias=web-1.demo.vm -o UpdateHostKeys=no -o VerifyHostKeyDNS=no -o CheckHostIP=no"
        " -o ControlPath=none -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"
        " -o LogLevel=ERROR -- 127.0.0.1 \"echo 'a b'\""
    )


def test_ssh_understands_it() -> None:
    settings = understood(argv())
    assert settings["hostname"] == "127.0.0.1"
    assert settings["port"] == "2222"
    assert settings["user"] == "root"
    assert settings["stricthostkeychecking"] == "true"
    assert settings["identitiesonly"] == "yes"
    assert settings["hostkeyalias"] == "web-1.demo.vm"
    assert settings["globalknownhostsfile"] == "/dev/null"


@pytest.mark.parametrize("name", ["my files", "50%h", 'a"b', "back\\slash", "it's", "über", "#hash", "a,b=c"])
def test_ssh_understands_odd_folders(tmp_path: Path, name: str) -> None:
    """ssh -G shows the known hosts after the expansion of %-tokens, and the identity before it."""
    folder = tmp_path / name
    folder.mkdir()
    settings = understood(argv(folder))
    assert settings["userknownhostsfile"] == str(folder / "known_hosts")
    assert settings["identityfile"] == str(folder / "id").replace("%", "%%")


@pytest.mark.parametrize("name", ["a\nb", "${HOME}", "tab\there"])
def test_what_ssh_cannot_express_is_refused(name: str) -> None:
    with pytest.raises(BangerError, match="ssh cannot use the path"):
        argv(Path("/tmp") / name)


@pytest.mark.parametrize("word", ["", " ", "it's", '"', "$HOME", "`id`", "a;b", "*", "\n", "-n", "ü", "\\"])
def test_arguments_arrive_exactly(word: str) -> None:
    line = argv(command=["printf", "%s", word])[-1]
    assert subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout.decode() == word


def test_terminal_and_shell() -> None:
    assert "-tt" in argv(tty=True)
    assert not {"-t", "-tt", "-T"} & set(argv())
    assert argv()[-2:] == ["--", "127.0.0.1"]
    assert argv(command=[])[-2:] == ["--", "127.0.0.1"]


def test_extra_options_add_and_never_weaken() -> None:
    settings = understood(argv(extra_options=["Compression=yes", "StrictHostKeyChecking=no"]))
    assert settings["compression"] == "yes"
    assert settings["stricthostkeychecking"] == "true"


def test_client_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "id_ed25519"
    public = keys.ensure_client_key(path)
    assert public.startswith("ssh-ed25519 ")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    private = path.read_bytes()
    assert keys.ensure_client_key(path) == public
    assert path.read_bytes() == private


def test_client_key_without_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "id"
    public = keys.ensure_client_key(path)
    path.with_name("id.pub").unlink()
    assert keys.ensure_client_key(path).split()[:2] == public.split()[:2]


def test_a_pair_left_half_made_is_made_anew(tmp_path: Path) -> None:
    """Killed between the two renames: the public half alone counts for nothing."""
    path = tmp_path / "id"
    old = keys.ensure_client_key(path)
    path.unlink()
    new = keys.ensure_client_key(path)
    assert new != old
    derived = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == new.split()[:2]


def test_a_damaged_key_is_reported_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_text("not a key")
    path.chmod(0o600)
    with pytest.raises(BangerError, match="ssh-keygen"):
        keys.ensure_client_key(path)
    assert path.read_text() == "not a key"


def test_many_at_once_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    make = keys._make
    monkeypatch.setattr(keys, "_make", lambda path, comment: (made.append(path), make(path, comment)))
    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(lambda _: keys.ensure_client_key(tmp_path / "ssh" / "id"), range(4)))
    assert (len(results), len(made)) == (1, 1)


def test_host_key_and_its_pin(tmp_path: Path) -> None:
    public = keys.make_host_key(tmp_path / "vm", "web-1.demo.vm")
    assert public.endswith(" web-1.demo.vm")
    (tmp_path / "known_hosts").write_text(keys.known_hosts_line("web-1.demo.vm", public))
    found = subprocess.run(
        ["ssh-keygen", "-F", "web-1.demo.vm", "-f", tmp_path / "known_hosts"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert public.split()[1] in found.stdout


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BangerError, match="cannot make the key"):
        keys.ensure_client_key(tmp_path / "file" / "ssh" / "id")
