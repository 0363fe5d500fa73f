"""Work in a guest: done once for its content, or once in a boot; what it said is kept, and bounded."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from reconciler.drivers.guest import provision
from reconciler.drivers.guest.provision import Report, Work
from tests.fakes.guestroot import Root, root_fixture

__all__ = ["root_fixture"]


@pytest.fixture
def guest(root: Root) -> Root:
    (root.folder / "bin").mkdir()
    root.path("/bin/sh").symlink_to("/run/banger/busybox")
    root.path("/bin/echo").symlink_to("/run/banger/busybox")
    return root


def work(text: str, *, key: str = "k1", once: bool = True, timeout: float = 60.0) -> Work:
    return Work(key=key, title=text.partition("\n")[0], program=text.encode(), once=once, timeout=timeout)


def do(guest: Root, *works: Work, redact: Callable[[str], str] = str) -> list[Report]:
    return [provision.run(guest, each, redact) for each in provision.pending(guest, works)]


def test_a_step_is_done_once_for_its_content(guest: Root) -> None:
    first, second = work("echo a >>/tmp/said"), work("echo b >>/tmp/said", key="k2")
    assert [report.code for report in do(guest, first, second)] == [0, 0]
    assert do(guest, first, second) == []
    do(guest, first, work("echo c >>/tmp/said", key="k3"))
    assert guest.path("/tmp/said").read_text() == "a\nb\nc\n"


def test_a_step_of_each_boot_is_done_again_when_the_memory_is_new(guest: Root) -> None:
    each = work("echo a >>/tmp/said", once=False)
    do(guest, each)
    assert do(guest, each) == []
    shutil.rmtree(guest.path("/run/banger/provisioned"))
    do(guest, each)
    assert guest.path("/tmp/said").read_text() == "a\na\n"


def test_a_step_that_fails_is_done_again_and_says_what_it_said(guest: Root) -> None:
    (report,) = do(guest, work("echo out\necho err >&2\nfalse\necho not here"))
    assert (report.code, report.output) == (1, "out\nerr\n")
    error = provision.failure(report, 3, hint="h")
    assert error.cause == "provision step 3 (echo out) failed with exit code 1: out / err"
    assert error.error_class.worth_retrying
    assert len(do(guest, work("echo out\necho err >&2\nfalse\necho not here"))) == 1


@pytest.mark.parametrize(
    ("text", "code"), [("exit 7", 7), ("exit 255", 254), ("kill -9 $$", 137), ("no-such-thing", 127)]
)
def test_its_exit_code_is_the_step_s(guest: Root, text: str, code: int) -> None:
    (report,) = do(guest, work(text))
    assert report.code == code


def test_a_program_of_its_own_kind_is_run_as_that(guest: Root) -> None:
    (report,) = do(guest, work("#!/bin/echo it is\nnothing"))
    assert report.output == "it is /run/banger/step\n"


def test_it_reads_nothing_and_leaves_nothing_but_its_mark(guest: Root) -> None:
    (report,) = do(guest, work("read -r line || echo nothing; umask; pwd"))
    assert report.output == "nothing\n0022\n/root\n"
    assert not guest.path("/run/banger/step").exists()
    assert [path.name for path in guest.state.iterdir()] == ["provisioned"]


def test_what_it_says_is_bounded_and_passes_the_redaction(guest: Root) -> None:
    text = 'i=0; while [ $i -lt 40000 ]; do echo "line $i of hunter2"; i=$((i+1)); done'
    (report,) = do(guest, work(text), redact=lambda said: said.replace("hunter2", "***"))
    assert len(report.output) < 300_000
    assert report.output.endswith("line 39999 of ***\n") and "hunter2" not in report.output


def test_one_that_takes_too_long_is_ended(guest: Root) -> None:
    (report,) = do(guest, work("/run/banger/busybox sleep 600", timeout=1.0))
    assert report.code != 0
    assert "did not end within 1s" in provision.failure(report, 1, hint="h").cause


def test_the_steps_of_another_machine_do_not_count(guest: Root) -> None:
    do(guest, work("true"))
    guest.path("/run/banger/etc/machine-id").write_text("f" * 32 + "\n")
    assert len(do(guest, work("true"))) == 1
