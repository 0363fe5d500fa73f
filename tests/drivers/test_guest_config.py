"""The config disk: what the guest gets is what the host said, or the host is told that it cannot be."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

import pytest

from reconciler.drivers.guest import config, units
from reconciler.drivers.guest.sources import Entry, Kind
from reconciler.lib.errors import BangerError

PLAIN = config.GuestConfig(
    hostname="web-1",
    environment="demo",
    machine_id="0123456789abcdef" * 2,
    mac="02:00:00:00:00:01",
    address=IPv4Interface("172.30.7.10/24"),
    gateway=IPv4Address("172.30.7.1"),
    nameservers=(IPv4Address("172.30.7.1"), IPv4Address("9.9.9.9")),
    search=("demo.vm", "vm"),
    mtu=1400,
    authorized_keys=("ssh-ed25519 AAAA banger", 'ssh-ed25519 BBBB it\'s "mine" $(reboot) `id`'),
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----",
    host_key_public="ssh-ed25519 CCCC web-1",
    volumes=(("vol-data", "/var/lib/data"), ("vol-odd", '/srv/it\'s "odd" $HOME : \\ ü/*')),
)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What busybox, the guest's own tar, makes of the disk."""
    config.write(tmp_path / "config.tar", PLAIN)
    (tmp_path / "run").mkdir()
    subprocess.run(["busybox", "tar", "-x", "-f", tmp_path / "config.tar", "-C", tmp_path / "run"], check=True)
    return tmp_path / "run"


def test_each_value_is_a_file(unpacked: Path) -> None:
    folder = unpacked / "banger/config"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "hostname": "web-1\n",
        "environment": "demo\n",
        "mac": "02:00:00:00:00:01\n",
        "mtu": "1400\n",
        "address": "172.30.7.10/24\n",
        "gateway": "172.30.7.1\n",
        "files": f"{len(archives(unpacked.parent / 'config.tar')[0]) // 4096} 0\n",
        "volumes": 'vol-data/var/lib/data\nvol-odd/srv/it\'s "odd" $HOME : \\ ü/*\n',
    }


def archives(disk: Path) -> tuple[bytes, bytes]:
    """The two parts of a disk, divided where the first one says."""
    offset = int(read(disk)["banger/config/files"].split()[0]) * 4096
    data = disk.read_bytes()
    return data[:offset], data[offset:]


def test_files_are_an_archive_of_their_own_that_is_not_unpacked_with_the_rest(tmp_path: Path) -> None:
    entries = tuple(
        Entry(path=f"/etc/{number}", kind=Kind.FILE, mode=0o600, owner="root:root", data=bytes(10_000))
        for number in range(20)
    )
    config.write(tmp_path / "with", replace(PLAIN, files=entries))
    config.write(tmp_path / "without", PLAIN)
    assert read(tmp_path / "with").keys() == read(tmp_path / "without").keys()
    first, second = archives(tmp_path / "with")
    assert len(first) == len(archives(tmp_path / "without")[0])
    (tmp_path / "second").write_bytes(second)
    unpacked = read(tmp_path / "second")
    assert len(unpacked.pop("files/list").splitlines()) == 20 == len(unpacked)
    (tmp_path / "run").mkdir()
    subprocess.run(["busybox", "tar", "-x", "-f", tmp_path / "with", "-C", tmp_path / "run"], check=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["banger", "systemd", "udev"]


def test_what_other_programs_read(unpacked: Path) -> None:
    banger = unpacked / "banger"
    assert (banger / "resolv.conf").read_text() == "search demo.vm vm\nnameserver 172.30.7.1\nnameserver 9.9.9.9\n"
    assert (banger / "authorized_keys").read_text().splitlines() == list(PLAIN.authorized_keys)
    assert (banger / "ssh_host_ed25519_key").read_text() == PLAIN.host_key + "\n"
    assert (banger / "etc/machine-id").read_text() == PLAIN.machine_id + "\n"
    assert "127.0.1.1 web-1\n" in (banger / "etc/hosts").read_text()


def test_only_the_key_is_secret(unpacked: Path) -> None:
    modes = {p.relative_to(unpacked).as_posix(): p.stat().st_mode & 0o777 for p in unpacked.rglob("*") if p.is_file()}
    assert [name for name, mode in modes.items() if not mode & 0o004] == ["banger/ssh_host_ed25519_key"]
    assert not [name for name, mode in modes.items() if mode & 0o022]


def test_power_button_unit_is_wanted(unpacked: Path) -> None:
    system = unpacked / "systemd/system"
    assert (system / "sysinit.target.wants" / units.POWER_UNIT).resolve() == system / units.POWER_UNIT
    assert (unpacked / "banger/power/PWRF/00000080").stat().st_mode & 0o111


def test_the_disk_is_private_padded_reproducible_and_rooted(tmp_path: Path) -> None:
    path = tmp_path / "config.tar"
    config.write(path, PLAIN)
    first = path.read_bytes()
    config.write(path, PLAIN)
    assert path.read_bytes() == first
    assert len(first) % 4096 == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["config.tar"]
    with tarfile.open(path) as tar:
        assert {(member.uid, member.gid, member.mtime) for member in tar} == {(0, 0, 0)}


def read(disk: Path) -> dict[str, str]:
    with tarfile.open(disk) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_ipv6_is_two_more_files(tmp_path: Path) -> None:
    plain, with6 = tmp_path / "plain", tmp_path / "with6"
    config.write(plain, PLAIN)
    config.write(with6, replace(PLAIN, address6=IPv6Interface("fd00:30:7::a/64"), gateway6=IPv6Address("fd00:30:7::1")))
    before, after = read(plain), read(with6)
    added = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert added == {
        "banger/config/address6": "fd00:30:7::a/64\n",
        "banger/config/gateway6": "fd00:30:7::1\n",
    }
    assert after == before


def test_a_guest_without_network_has_no_address_files(tmp_path: Path) -> None:
    path = tmp_path / "config.tar"
    config.write(path, replace(PLAIN, mac=None, address=None, gateway=None, nameservers=(), search=()))
    with tarfile.open(path) as tar:
        names = set(tar.getnames())
    assert not names & {"banger/config/mac", "banger/config/address", "banger/config/gateway"}
    assert "banger/config/volumes" in names


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "web 1"},
        {"hostname": "web;reboot"},
        {"hostname": "-web"},
        {"hostname": "a" * 65},
        {"hostname": ""},
        {"hostname": "web\n"},
        {"environment": "demo\nx"},
        {"machine_id": "0123"},
        {"machine_id": "G" * 32},
        {"mac": "02-00-00-00-00-01"},
        {"mac": "02:00:00:00:00:0A"},
        {"mtu": 67},
        {"mtu": 65536},
        {"search": ("a b",)},
        {"authorized_keys": ("ssh-ed25519 AAAA\nssh-ed25519 EVIL",)},
        {"host_key_public": "a\rb"},
        {"volumes": (("vol-" + "x" * 17, "/data"),)},
        {"volumes": (("vol/x", "/data"),)},
        {"volumes": (("vol-x", "data"),)},
        {"volumes": (("vol-x", "/"),)},
        {"volumes": (("vol-x", "/data/../etc"),)},
        {"volumes": (("vol-x", "/data/"),)},
        {"volumes": (("vol-x", "//data"),)},
        {"volumes": (("vol-x", "/da\nta"),)},
        {"volumes": (("vol-x", "/da\0ta"),)},
    ],
)
def test_what_no_guest_could_use_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BangerError, match="a guest cannot have"):
        replace(PLAIN, **change)  # type: ignore[arg-type]


def test_a_folder_that_is_missing_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match=r"cannot write the config disk .*/nowhere/config.tar: No such file"):
        config.write(tmp_path / "nowhere" / "config.tar", PLAIN)


def test_serials_fit_virtio_and_stay_unique() -> None:
    assert config.volume_serial("data") == "vol-data"
    assert config.volume_serial("x" * 16) == "vol-" + "x" * 16
    long = [config.volume_serial("x" * 17), config.volume_serial("x" * 18), config.volume_serial("x" * 30 + "y")]
    assert len(set(long)) == 3
    assert {len(serial) for serial in long} == {20}
