"""`banger run`: what is asked for, what is passed on, and that nothing stays."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.api.service import ApplyOptions, ApplyResult, Approve, Reporter, Source, TrashEntry
from reconciler.cli import oneoff, wire
from reconciler.cli.main import cli
from reconciler.lib.atomic import exclusive
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths
from reconciler.lib.units import GIB, MIB
from reconciler.model.desired import DesiredState
from reconciler.model.plan import Plan
from reconciler.model.vm import RestartPolicy
from tests.fakes.service import FakeService, vm_status


@dataclass
class Host(FakeService):
    """Makes the VM that it is asked for, and runs its commands right here."""

    wanted: list[DesiredState] = field(default_factory=list)
    failing: BaseException | None = None
    ready: bool = True

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        self.wanted.append(desired)
        self.objects += [vm_status(name=name, environment=desired.environment) for name in desired.vms]
        if self.failing is not None:
            raise self.failing
        late = () if self.ready else tuple(o for o in self.objects if o.environment == desired.environment)
        return ApplyResult(plan=Plan(environment=desired.environment), not_ready=late)

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        self._called("delete", environment)
        self.objects = [o for o in self.objects if o.environment != environment]
        return ApplyResult(plan=Plan(environment=environment))

    @property
    def vm_wanted(self) -> Any:
        (desired,) = self.wanted
        (vm,) = desired.vms.values()
        return vm

    @property
    def deleted(self) -> list[str]:
        return [call[1] for call in self.calls if call[0] == "delete"]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(objects=[], argv=["env"])
    monkeypatch.setattr(wire, "connect", lambda: made)
    return made


def banger(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="banger", catch_exceptions=False)


def notes() -> list[str]:
    folder = Paths.discover().state / "runs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_exit_code_is_passed_and_the_vm_goes_to_the_trash(host: Host) -> None:
    done = banger("run", "--name", "x", "--", "sh", "-c", "exit 7")
    assert done.exit_code == 7
    assert host.deleted == ["run-x"]
    assert host.environments() == [] and notes() == []


def test_a_name_is_made_up_and_can_be_read(host: Host) -> None:
    names = set()
    for _ in range(20):
        banger("run", "--", "true")
    for desired in host.wanted:
        (name,) = desired.vms
        assert desired.environment == f"run-{name}"
        assert name.count("-") == 1 and len(desired.environment) <= 31
        names.add(name)
    assert len(names) > 10


def test_what_the_options_say_is_what_is_asked_for(host: Host) -> None:
    words = [
        "--cpus",
        "2",
        "--memory",
        "1GiB",
        "--disk",
        "2GiB",
        "-p",
        "8080:80",
        "--volume",
        "data:64MiB:/data",
        "--ttl",
        "1h",
        "--timeout",
        "5m",
    ]
    assert banger("run", *words, "--", "true").exit_code == 0
    vm = host.vm_wanted
    assert (vm.cpus, vm.memory, vm.disk, vm.network, vm.ttl) == (2, GIB, 2 * GIB, "user", 3600.0)
    assert [str(port) for port in vm.ports] == ["8080:80"]
    assert [(v.name, v.size, v.mount) for v in vm.volumes] == [("data", 64 * MIB, "/data")]
    assert vm.ready.timeout == 300.0
    assert vm.restart is RestartPolicy.NEVER


FILE = """\
apiVersion: banger/v1
name: demo
kernels: {k: {debian: {suite: bookworm}}}
images:
  one: {debian: {suite: bookworm}, kernel: k}
  two: {debian: {suite: trixie}, kernel: k}
vms: {dev: {image: two}}
"""


def test_the_image_is_the_file_s_first_or_the_named_one_or_the_one_that_comes_along(host: Host) -> None:
    banger("run", "--", "true")
    assert host.wanted[-1].images["base"].source.suite == "bookworm"  # type: ignore[union-attr]
    Path("banger.yaml").write_text(FILE)
    banger("run", "--", "true")
    assert list(host.wanted[-1].images) == ["one"]
    banger("run", "--image", "two", "--", "true")
    assert list(host.wanted[-1].images) == ["two"]
    assert list(host.wanted[-1].kernels) == ["k"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--memory", "lots"), "--memory: 'lots' is not"),
        (("--cpus", "0"), "--cpus: 0 is too small"),
        (("-p", "80"), "--publish: '80' is not a published port"),
        (("--volume", "data"), "--volume: 'data' is not NAME:SIZE:MOUNT"),
        (("--volume", "data:64MiB:/"), "--volume: a volume cannot be the root"),
        (("--network", "lab"), "--network: lab belongs to the environment of a file"),
        (("--image", "x"), "--image: there is no image x; there are: base"),
        (("--name", "Not"), "--name: "),
        (("--name", "a" * 40), "--name: "),
        (("nothing",), "nothing is not a folder"),
    ],
)
def test_a_wrong_value_is_told_as_its_option(host: Host, words: tuple[str, ...], told: str) -> None:
    done = banger("run", *words, "--", "true")
    assert done.exit_code == 2
    assert told in done.output.replace("\n  hint: ", "; ")
    assert not host.wanted and notes() == []


def test_dashes_without_a_command_are_a_mistake(host: Host) -> None:
    assert banger("run", "--").exit_code == 2


def test_kept_it_stays_and_nothing_removes_it_later(host: Host) -> None:
    done = banger("run", "--name", "x", "--keep", "--", "true")
    assert done.exit_code == 0
    assert "ssh run-x/x" in done.output
    banger("ps")
    assert host.deleted == [] and notes() == []


def test_rm_deletes_what_this_run_trashed_and_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def trashed(entry: str, environment: str = "run-x") -> TrashEntry:
        return TrashEntry(entry=entry, environment=environment, name="x", trashed_at=1.0, size=1)

    def remove(environment: str, *rest: Any) -> ApplyResult:
        host.trashed += [trashed("new")]
        return Host.delete(host, environment, *rest)

    host.trashed = [trashed("old"), trashed("other", "demo")]
    monkeypatch.setattr(host, "delete", remove)
    assert banger("run", "--rm", "--name", "x", "--", "sh", "-c", "exit 7").exit_code == 7
    assert [entry.entry for entry in host.trashed] == ["old", "other"]
    assert banger("run", "--rm", "--keep", "--", "true").exit_code == 2


def test_not_kept_if_it_never_came_up(host: Host) -> None:
    host.ready = False
    assert banger("run", "--name", "x", "--keep", "--", "true").exit_code == 4
    assert host.deleted == ["run-x"]


@pytest.mark.parametrize("problem", [BangerError("no"), KeyboardInterrupt(), RuntimeError("defect")])
def test_whatever_happens_nothing_stays(host: Host, problem: BaseException) -> None:
    host.failing = problem
    assert banger("run", "--name", "x", "--", "true").exit_code in (1, 130)
    assert host.deleted == ["run-x"]
    assert notes() == []


def test_what_a_killed_run_left_goes_with_the_next_command(host: Host) -> None:
    host.objects = [vm_status(name="x", environment="run-x"), vm_status(name="y", environment="run-y")]
    folder = Paths.discover().state / "runs"
    folder.mkdir(parents=True)
    for name in ("run-x", "run-y", "run-never-was"):
        (folder / name).touch()
    with exclusive(folder / "run-y"):
        done = banger("ps")
    assert host.deleted == ["run-x"]
    assert notes() == ["run-y"]
    assert "removed run-x" in done.output


def test_a_completion_removes_nothing(host: Host) -> None:
    host.objects = [vm_status(name="x", environment="run-x")]
    folder = Paths.discover().state / "runs"
    folder.mkdir(parents=True)
    (folder / "run-x").touch()
    CliRunner().invoke(
        cli,
        [],
        prog_name="banger",
        env={"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": "banger ssh ", "COMP_CWORD": "2"},
    )
    assert host.deleted == []


def test_a_name_in_use_is_refused(host: Host) -> None:
    with oneoff.noted("run-x") as note:
        done = banger("run", "--name", "x", "--", "true")
        oneoff.forget(note)
    assert done.exit_code == 1
    assert "another command is using the name" in done.output
    host.objects = [vm_status(name="x", environment="run-x")]
    assert banger("run", "--name", "x", "--", "true").exit_code == 2
    assert host.deleted == []


def test_a_repository_is_the_workspace_and_the_command_runs_in_the_named_folder(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "my repo"
    (top / "sub").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", top], check=True)
    calls: list[list[str]] = []
    monkeypatch.setattr("reconciler.cli.commands.run.interactive", lambda argv: calls.append(list(argv)) or 0)
    assert banger("run", str(top / "sub"), "--", "make", "it").exit_code == 0
    workspace = host.vm_wanted.workspace
    assert (workspace.host, workspace.guest) == (str(top), "/root/my-repo")
    assert calls[0][-3:] == ["/root/my-repo/sub", "make", "it"]


def test_without_a_network_the_agent_runs_it(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(wire, "run_by_agent", lambda way, command, **more: ran.append(list(command)) or 7)
    assert banger("run", "--network", "none", "--name", "x", "--", "ls", "/").exit_code == 7
    assert (ran, host.deleted) == ([["ls", "/"]], ["run-x"])
    for words, why in (([], "a shell needs ssh"), ([str(tmp_path), "--", "ls"], "travels over ssh")):
        refused = banger("run", "--network", "none", *words)
        assert (refused.exit_code, why in refused.stderr) == (2, True)
    assert len(host.wanted) == 1


def test_a_plain_folder_is_carried_over(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "f").write_text("x")
    guest = tmp_path / "guest"
    monkeypatch.setattr("reconciler.cli.oneoffspec.guest_path", lambda folder: str(guest))
    # What arrives is one string for a shell, as through ssh.
    host.argv = ["sh", "-c"]
    monkeypatch.setattr("reconciler.cli.commands.run.interactive", lambda argv: 0)
    assert banger("run", str(tmp_path / "plain"), "--", "true").exit_code == 0
    assert (guest / "f").read_text() == "x"
    assert host.vm_wanted.workspace is None
