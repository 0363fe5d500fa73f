"""An installation is complete, repeatable, revocable, and leaves what is somebody else's."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from reconciler.install import installer, layout
from reconciler.install.host import Host, _table
from reconciler.install.layout import Layout
from reconciler.install.record import Record
from reconciler.lib.errors import BangerError


@dataclass
class FakeHost(Host):
    """A host with a systemd that does what it is told."""

    user: bool = False
    has: bool = False
    ids: bool = False
    up: set[str] = field(default_factory=set)
    enabled_units: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)
    booted: bool = True

    def manager(self) -> bool:
        return self.booted

    def active(self, unit: str) -> bool:
        return unit in self.up

    def enabled(self, unit: str) -> bool:
        return unit in self.enabled_units

    def has_user(self) -> bool:
        return self.has

    def subids(self) -> list[str] | None:
        return None if self.ids else ["usermod", "--add-subuids", "1-2", "banger"]

    def run(self, argv: Sequence[str]) -> None:
        words = [word for word in argv if word != "--user"]
        self.ran.append(" ".join(words))
        match words:
            case ["systemd-sysusers", *_]:
                self.has = True
            case ["usermod", *_]:
                self.ids = True
            case ["systemctl", "enable", "--now", *units]:
                self.up.update(units)
                self.enabled_units.update(units)
            case ["systemctl", "disable", "--now", *units]:
                self.up.difference_update(units)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The layout of a whole host whose root is a folder, as far as the installer can tell."""
    made = layout.system(tmp_path)
    monkeypatch.setattr(installer, "Path", lambda text: tmp_path if text == "/" else Path(text))
    monkeypatch.setattr(installer, "_require_reachable", lambda layout: None)
    return made


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def install(target: Layout, host: Host, *, dry_run: bool = False) -> list[str]:
    said: list[str] = []
    changed = installer.install(target, host, said.append, dry_run=dry_run)
    assert changed == bool(said)
    return said


def changed(target: Layout, name: str, content: bytes) -> Layout:
    return replace(target, files=tuple(replace(f, content=content) if f.path.name == name else f for f in target.files))


def test_a_first_installation(target: Layout) -> None:
    host = FakeHost()
    said = install(target, host)
    assert host.ran == [
        f"systemd-sysusers {target.sysusers}",
        "usermod --add-subuids 1-2 banger",
        "systemctl daemon-reload",
        "systemctl enable --now banger-builder.socket banger-helper.socket",
    ]
    assert said == [*(f"write {file.path}" for file in target.files), *(f"run {line}" for line in host.ran)]
    for file in target.files:
        assert file.path.read_bytes() == file.content
        assert stat.S_IMODE(file.path.stat().st_mode) == file.mode
    assert not list(target.root.rglob(".staging"))


def test_a_second_one_does_nothing(target: Layout) -> None:
    host = FakeHost()
    install(target, host)
    before = {path: path.stat().st_ino for path in target.root.rglob("*")}
    host.ran.clear()
    assert install(target, host) == []
    assert host.ran == []
    assert {path: path.stat().st_ino for path in target.root.rglob("*")} == before


def test_a_dry_run_says_the_same_and_does_nothing(target: Layout) -> None:
    dry, host = FakeHost(), FakeHost()
    said = install(target, dry, dry_run=True)
    assert (files(target.root), dry.ran) == ({}, [])
    assert install(target, host) == said


def test_an_upgrade_restarts_what_runs(target: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost()
    install(target, host)
    host.up.add("banger-controller.service")
    host.ran.clear()
    monkeypatch.setattr(installer, "package_digest", lambda: "another")
    assert install(target, host) == ["run systemctl try-restart banger-controller.service"]
    assert install(target, host) == []


def test_an_upgrade_that_failed_to_restart_is_finished_by_the_next(
    target: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost()
    install(target, host)
    host.up.add("banger-controller.service")
    monkeypatch.setattr(installer, "package_digest", lambda: "another")
    with monkeypatch.context() as broken:

        def refuse(argv: Sequence[str]) -> None:
            raise BangerError("Job for banger-controller.service failed")

        broken.setattr(host, "run", refuse)
        with pytest.raises(BangerError, match="Job for"):
            install(target, host)
    assert install(target, host) == ["run systemctl try-restart banger-controller.service"]


def test_another_socket_is_opened_anew(target: Layout) -> None:
    host = FakeHost()
    install(target, host)
    host.ran.clear()
    install(changed(target, "banger-helper.socket", b"[Socket]\n"), host)
    assert host.ran == [
        "systemctl daemon-reload",
        "systemctl stop banger-helper.service",
        "systemctl restart banger-helper.socket",
    ]


def test_what_a_newer_version_does_not_have_goes(target: Layout) -> None:
    host = FakeHost()
    install(target, host)
    less = replace(target, files=target.files[1:])
    assert install(less, host)[0] == f"remove {target.files[0].path}"
    assert not target.files[0].path.exists()


@pytest.mark.parametrize("make", ["file", "link", "folder", "edit", "mode"])
def test_what_is_somebody_elses_stops_it_before_anything_is_done(make: str, target: Layout) -> None:
    path = target.files[-1].path
    if make in ("edit", "mode"):
        install(target, FakeHost())
        target = changed(target, target.files[0].path.name, b"newer")
    path.parent.mkdir(parents=True, exist_ok=True)
    match make:
        case "file" | "edit":
            path.write_text("mine")
        case "mode":
            path.chmod(0o600)
        case "link":
            path.symlink_to("/etc/passwd")
        case "folder":
            path.mkdir()
    before, host = files(target.root), FakeHost()
    with pytest.raises(BangerError, match=f"not as banger left it: {path}"):
        install(target, host)
    assert (files(target.root), host.ran) == (before, [])


def test_a_file_that_is_right_already_is_no_obstacle(target: Layout) -> None:
    file = target.files[0]
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(file.content)
    file.path.chmod(file.mode)
    assert f"write {file.path}" not in install(target, FakeHost())


@pytest.mark.parametrize("fails_at", [0, 1, 8])
def test_an_installation_that_was_cut_off(fails_at: int, target: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    install(target, FakeHost())
    newer = replace(target, files=tuple(replace(f, content=f.content + b"\n") for f in target.files))
    written: list[Path] = []
    real = installer._write

    def write(file: layout.File) -> None:
        if len(written) == fails_at:
            raise KeyboardInterrupt
        written.append(file.path)
        real(file)

    with monkeypatch.context() as cut:
        cut.setattr(installer, "_write", write)
        with pytest.raises(KeyboardInterrupt):
            install(newer, FakeHost())
    host = FakeHost()
    if fails_at % 2:
        assert len([line for line in install(newer, host) if line.startswith("write ")]) == 9 - fails_at
    installer.uninstall(newer, host, lambda _: None)
    assert files(target.root) == {}


def test_uninstalling_removes_exactly_what_was_installed(target: Layout) -> None:
    state = target.root / "var/lib/banger/vms/demo"
    state.mkdir(parents=True)
    (state / "overlay.ext4").write_text("precious")
    dropin = target.root / "etc/systemd/system/banger-controller.service.d/mine.conf"
    dropin.parent.mkdir(parents=True)
    dropin.write_text("[Service]\n")
    before, host, said = files(target.root), FakeHost(), []
    install(target, host)
    host.ran.clear()
    assert installer.uninstall(target, host, said.append)
    assert files(target.root) == before
    assert not (target.root / "usr/lib/banger").exists()
    assert host.ran[0].startswith("systemctl disable --now ")
    assert set(host.ran[0].split()[3:]) == {name for name in layout.SYSTEM_UNITS if "@" not in name}
    assert host.ran[1:] == ["systemctl daemon-reload"]
    assert installer.uninstall(target, host, said.append) is False


def test_uninstalling_keeps_what_was_edited(target: Layout) -> None:
    install(target, FakeHost())
    edited = target.files[-1].path
    edited.write_text("mine")
    said: list[str] = []
    installer.uninstall(target, FakeHost(), said.append)
    assert files(target.root) == {str(edited.relative_to(target.root)): b"mine"}
    assert f"keep {edited}: it is not as banger left it" in said


def test_a_dry_uninstallation_removes_nothing(target: Layout) -> None:
    install(target, FakeHost())
    before, host = files(target.root), FakeHost()
    assert installer.uninstall(target, host, lambda _: None, dry_run=True)
    assert (files(target.root), host.ran) == (before, [])


def test_without_systemd_only_the_user_is_made(target: Layout) -> None:
    host = FakeHost(booted=False)
    install(target, host)
    assert [line.split()[0] for line in host.ran] == ["systemd-sysusers", "usermod"]
    assert install(target, host) == []


def test_below_a_prefix_nothing_is_run(tmp_path: Path) -> None:
    made, host = layout.system(tmp_path), FakeHost()
    install(made, host)
    installer.uninstall(made, host, lambda _: None)
    assert (host.ran, files(tmp_path)) == ([], {})


def test_a_users_own(tmp_path: Path) -> None:
    made = layout.user({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative"}, python="/opt/banger/bin/python3")
    host = FakeHost(user=True)
    install(made, host)
    assert set(files(tmp_path)) == {
        ".local/lib/banger/banger",
        ".local/lib/banger/installed.json",
        ".config/systemd/user/banger-controller.service",
    }
    assert host.ran == ["systemctl daemon-reload"]
    assert install(made, host) == []


def test_roots_own_vms_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(installer, "_HIDDEN", ())
    database = tmp_path / "var/lib/banger/banger.db"
    database.parent.mkdir(parents=True)
    database.touch()
    monkeypatch.setattr(Path, "stat", lambda self, **more: type("S", (), {"st_uid": 0, "st_mode": 0})())
    with pytest.raises(BangerError, match="VMs of root's own"):
        installer._require_reachable(layout.Layout(tmp_path, (), tmp_path / "r", (), user=False))


def test_a_package_that_the_service_cannot_see_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(installer, "PACKAGE", Path("/home/u/venv/lib/python3.11/site-packages/reconciler"))
    with pytest.raises(BangerError, match="could not read /home/u"):
        installer._require_reachable(layout.Layout(Path("/"), (), Path("/r"), (), user=False))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(BangerError, match="only root"):
        installer._require_reachable(layout.Layout(Path("/"), (), Path("/r"), (), user=False))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": {"/x": 3}, "package": ""}'])
def test_a_broken_record_is_not_guessed_at(text: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(BangerError, match="cannot read"):
        Record.read(tmp_path / "r")


def test_the_record_is_json(target: Layout) -> None:
    install(target, FakeHost())
    assert set(json.loads(target.record.read_text())["files"]) == {str(file.path) for file in target.files}


def test_subordinate_ids_of_others_are_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.install import host as module

    tables = (tmp_path / "subuid", tmp_path / "subgid")
    monkeypatch.setattr(module, "_SUBIDS", tables)
    monkeypatch.setattr(module, "which", lambda program: f"/usr/sbin/{program}")
    host = Host(user=False)
    assert host.subids() == ["usermod", "--add-subuids", "100000-165535", "--add-subgids", "100000-165535", "banger"]
    tables[0].write_text("u:100000:65536\nnonsense\n")
    tables[1].write_text("u:165536:65536\nv:300:10\n")
    assert (host.subids() or [])[2] == "231072-296607"
    tables[0].write_text("u:100000:65536\nbanger:165536:65536\n")
    assert host.subids() is not None, "one of the two is not enough"
    tables[1].write_text("banger:165536:65536\n")
    assert host.subids() is None
    assert _table(tables[1]) == [("banger", 165536, 65536)]
