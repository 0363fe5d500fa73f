"""What a guest is told to do for an image that is built on another, and what becomes of what it says."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from reconciler.drivers.images import built
from reconciler.drivers.images.packing import Job, JobKind, JobStep, Workshop
from reconciler.drivers.vmm import task
from reconciler.drivers.vmm.backend import Accelerator, AcceleratorKind
from reconciler.execute import making
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.lib.paths import ImagePaths, Paths
from reconciler.lib.progress import Progress, Silent
from reconciler.lib.units import MIB
from reconciler.model.artifacts import Blob, BuiltImage, CopyStep, RunStep

BASE = "0123456789abcdef"
JOB = Job(kind=JobKind.BUILD, root=Path("/r"), steps=(JobStep("run x", "run", b"x"),))


def made(folder: Path, *steps: RunStep | CopyStep) -> tuple[JobStep, ...]:
    jobs: list[Job] = []

    def pack(job: Job, squashfs: Path, scratch: Path, progress: Progress) -> None:
        jobs.append(job)

    paths = Paths.discover({"BANGER_HOME": str(folder / "home")})
    base = paths.image(BASE)
    base.root.mkdir(parents=True)
    base.squashfs.touch()
    (folder / "scratch").mkdir()
    source = BuiltImage(base=BASE, steps=steps)
    built.make(source, ImagePaths(folder / "target"), folder / "scratch", Silent(), Workshop(paths, pack))
    (job,) = jobs
    assert (job.kind, job.root) == (JobKind.BUILD, base.squashfs)
    return job.steps


def entry(step: JobStep) -> tuple[str, int, int, bytes]:
    with tarfile.open(fileobj=io.BytesIO(step.content)) as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        return member.name, member.mode, member.uid, content.read()


def test_steps_are_told_in_their_order(tmp_path: Path) -> None:
    first, second = made(tmp_path, RunStep(script="\necho a\necho b\n"), CopyStep(to="/etc/motd", content="hello\n"))
    assert (first.title, first.kind, first.content) == ("run echo a", "run", b"\necho a\necho b\n")
    assert second.title == "copy to /etc/motd" and entry(second) == ("etc/motd", 0o644, 0, b"hello\n")


def test_a_copied_file_is_compared_first(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"tool")
    blob = Blob(url=(tmp_path / "tool").as_uri(), sha256=hashlib.sha256(b"tool").hexdigest())
    (step,) = made(tmp_path, CopyStep(to="/bin/tool", mode="0755", blob=blob))
    assert entry(step) == ("bin/tool", 0o755, 0, b"tool")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_another_file_ends_it(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"other")
    blob = Blob(url=(tmp_path / "tool").as_uri(), sha256="0" * 64)
    with pytest.raises(BangerError, match="has the sha256"):
        made(tmp_path, CopyStep(to="/bin/tool", blob=blob))


def test_the_same_bytes_are_copied_from_anywhere() -> None:
    def image(url: str) -> str:
        return BuiltImage(base=BASE, steps=(CopyStep(to="/x", blob=Blob(url=url, sha256="0" * 64)),)).id

    assert image("https://a/") == image("file:///b")


def test_what_it_stands_on_has_to_be_there(tmp_path: Path) -> None:
    paths = Paths.discover({"BANGER_HOME": str(tmp_path)})
    with pytest.raises(BangerError, match=f"the image {BASE}, which this one is built on, is not in the cache"):
        built.make(BuiltImage(base=BASE), ImagePaths(tmp_path), tmp_path, Silent(), Workshop(paths, lambda *_: None))


def heard(*lines: str) -> making.Told:
    told = making.Told(JOB, Silent())
    for line in lines:
        told.hear(line)
    return told


def test_only_a_guest_that_says_so_is_done() -> None:
    heard("banger: doing packing", "banger: done").require_done()
    with pytest.raises(BangerError, match="ended in the middle:\n  Kernel panic") as caught:
        heard("banger: doing packing", "Kernel panic").require_done()
    assert caught.value.error_class is ErrorClass.RETRYABLE


def test_a_step_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(BangerError, match="step run x: it ended with exit code 3:\n  sh: no such thing") as caught:
        heard(
            "sh: no such\x1bthing",
            "banger: failed step run x: it ended with exit code 3",
            "banger: done",
        ).require_done()
    assert caught.value.error_class is ErrorClass.TERMINAL


def test_what_it_says_is_bounded_and_harmless() -> None:
    with pytest.raises(BangerError) as caught:
        heard(*["\x1b[31m" + "x" * 100_000] * 1000).require_done()
    assert len(caught.value.cause) < 20_000 and "\x1b" not in caught.value.cause


def test_disks_that_the_guest_may_not_change_cannot_be() -> None:
    disks = (
        task.TaskDisk(serial="root", path=Path("/a,b"), format=task.Format.QCOW2, kept=False),
        task.TaskDisk(serial="job", path=Path("/job"), readonly=True),
        task.TaskDisk(serial="out", path=Path("/out")),
    )
    wanted = task.Task(
        vmlinux=Path("/k"),
        initrd=Path("/i"),
        disks=disks,
        memory=512 * MIB,
        cpus=1,
        network=False,
        scratch=Path("/s"),
        seconds=9,
    )
    words = task.argv(wanted, Accelerator(AcceleratorKind.TCG))
    drives = [word for word in words if word.startswith("id=disk")]
    assert "file=/a,,b,format=qcow2" in drives[0] and drives[0].endswith("snapshot=on")
    assert "readonly=on" in drives[1] and "readonly" not in drives[2] and "snapshot" not in drives[2]
    assert all("werror=report" in drive for drive in drives) and "-netdev" not in words
